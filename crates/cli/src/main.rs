//! The blackletter command.

fn main() {}
