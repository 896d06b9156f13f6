//! Tells whether two JSON paths (RFC 9535) may lead to the same place, or one into the other, by the names in them. In
//! doubt they do.

/// One step of a path, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The member of that name.
    Name(String),
    /// Some element or member: a wildcard, an index, a filter, several at once.
    Some,
    /// Anything below, at any depth.
    Below,
}

/// Whether two paths touch. Both are valid; what is not is taken for anything.
pub(super) fn touch(one: &str, other: &str) -> bool {
    steps_touch(&steps(one), &steps(other))
}

fn steps_touch(one: &[Step], other: &[Step]) -> bool {
    match (one, other) {
        ([], _) | (_, []) => true,
        ([Step::Below, ..], _) | (_, [Step::Below, ..]) => {
            // At any depth, a path is known by its last name.
            let last = |steps: &[Step]| {
                steps.iter().rev().find_map(|step| match step {
                    Step::Name(name) => Some(Step::Name(name.clone())),
                    Step::Some | Step::Below => None,
                })
            };
            match (last(one), last(other)) {
                (Some(mine), Some(theirs)) => other.contains(&mine) || one.contains(&theirs),
                _ => true,
            }
        }
        ([Step::Name(mine), ..], [Step::Name(theirs), ..]) if mine != theirs => false,
        ([_, one @ ..], [_, other @ ..]) => steps_touch(one, other),
    }
}

fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path.trim_start().trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix("..") {
            steps.push(Step::Below);
            rest = behind;
            if rest.starts_with('[') {
                continue;
            }
        } else if let Some(behind) = rest.strip_prefix('.') {
            rest = behind;
        }
        let (step, length) = match rest.starts_with('[') {
            true => bracketed(rest),
            false => {
                let length = rest.find(['.', '[']).unwrap_or(rest.len()).max(1);
                let name = rest.get(..length).unwrap_or(rest).trim();
                (if name == "*" { Step::Some } else { Step::Name(name.to_owned()) }, length)
            }
        };
        steps.push(step);
        rest = rest.get(length..).unwrap_or_default();
    }
    steps
}

/// What stands in brackets, and how long it is with them.
fn bracketed(text: &str) -> (Step, usize) {
    let (mut depth, mut quote, mut escaped) = (0_usize, None, false);
    let end = text.char_indices().find_map(|(at, char)| {
        match (char, quote) {
            _ if escaped => escaped = false,
            ('\\', Some(_)) => escaped = true,
            (char, Some(open)) if char == open => quote = None,
            (_, Some(_)) => {}
            ('\'' | '"', None) => quote = Some(char),
            ('[', None) => depth += 1,
            (']', None) => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(at + 1)
    });
    let end = end.unwrap_or(text.len());
    let inner = text.get(1..end.saturating_sub(1)).unwrap_or_default().trim();
    let name = ['\'', '"'].into_iter().find_map(|quote| {
        let name = inner.strip_prefix(quote)?.strip_suffix(quote)?;
        (!name.contains(['\'', '"', '\\'])).then(|| Step::Name(name.to_owned()))
    });
    (name.unwrap_or(Step::Some), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_touch_unless_their_names_say_otherwise() {
        let cases = [
            ("$.a", "$.a", true),
            ("$.a", "$.b", false),
            ("$.a", "$.a.b", true),
            ("$.a.b", "$.a.c", false),
            ("$['a']", "$.a", true),
            ("$[\"a b\"]", "$['a b'].c", true),
            ("$['a.b']", "$.a", false),
            ("$.*", "$.a", true),
            ("$.a[*].id", "$.a[0].id", true),
            ("$.a[*].id", "$.a[?@.x == ']'].name", false),
            ("$.a['x','y']", "$.a.z", true),
            ("$..email", "$.user.email", true),
            ("$..email", "$.user.email.domain", true),
            ("$..email", "$.user.name", false),
            ("$..email", "$..email", true),
            ("$..user.email", "$.user", true),
            ("$..*", "$.a", true),
            ("$..['email']", "$.email", true),
            ("$", "$.a", true),
        ];
        for (one, other, expected) in cases {
            assert_eq!(touch(one, other), expected, "{one} and {other}");
            assert_eq!(touch(other, one), expected, "{other} and {one}");
        }
    }
}
