//! The key to what only `replay` may look at.

/// Opens what [`Sealed`](crate::policy::mask::Sealed) holds. Nothing outside of `replay` can make one:
///
/// ```compile_fail
/// let key = shadow_agent::replay::Key(());
/// ```
///
/// ```compile_fail
/// let key = shadow_agent::replay::Key::new();
/// ```
#[derive(Debug)]
pub struct Key(());

impl Key {
    pub(super) const fn new() -> Key {
        Key(())
    }
}
