//! Compares a shadow's answer with production's response. Pure: bytes and rules in, differences out.
