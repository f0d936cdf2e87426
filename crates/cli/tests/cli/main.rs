//! The command as its users meet it: arguments in, exit code, standard output and standard error out.

mod command_line;
mod generate;
#[cfg(feature = "hub")]
mod hub;
mod support;
