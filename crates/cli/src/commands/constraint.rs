//! What a text has to be, as arguments.

use super::text::read_text;
use crate::failure::Failure;
use blackletter_engine::constraint::ConstraintSpec;
use std::path::PathBuf;

/// A constraint on what is made.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Constraint", group = clap::ArgGroup::new("constraint").multiple(false))]
pub struct ConstraintArgs {
    /// Make a JSON document that this JSON schema accepts, without white space between its parts; - for standard input. What
    /// cannot be kept is refused before anything is made.
    #[arg(long, value_name = "FILE", group = "constraint")]
    json_schema: Option<PathBuf>,
    /// Make text that matches this regular expression from beginning to end.
    #[arg(long, value_name = "REGEX", group = "constraint")]
    regex: Option<String>,
    /// Make text that this grammar derives, in llguidance's variant of Lark.
    #[arg(long, value_name = "FILE", group = "constraint")]
    grammar: Option<PathBuf>,
    /// Make one of these texts; give it several times.
    #[arg(long, value_name = "TEXT", group = "constraint")]
    choice: Vec<String>,
}

impl ConstraintArgs {
    /// The constraint, when there is one.
    pub fn spec(&self) -> Result<Option<ConstraintSpec>, Failure> {
        if let Some(path) = &self.json_schema {
            let text = read_text(path)?;
            let schema = serde_json::from_str(&text)
                .map_err(|e| Failure::failed(format!("{} is not JSON: {e}", path.display())))?;
            return Ok(Some(ConstraintSpec::JsonSchema(schema)));
        }
        if let Some(regex) = &self.regex {
            return Ok(Some(ConstraintSpec::Regex(regex.clone())));
        }
        if let Some(path) = &self.grammar {
            return Ok(Some(ConstraintSpec::Lark(read_text(path)?)));
        }
        Ok((!self.choice.is_empty()).then(|| ConstraintSpec::Choice(self.choice.clone())))
    }
}
