//! The configuration as a whole: what is understood, and how diagnostics look.

mod container;
mod golden;
mod page;
mod understood;

use super::{Config, ConfigError};

/// Reads a text with a small environment of its own.
fn parse(text: &str) -> Result<Config, ConfigError> {
    let variables = [
        ("NAME", "shop"),
        ("EMPTY", ""),
        ("PORT", "7"),
        ("TOKEN", "hunter2"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Config::parse("greenlight.yml", text, variables)
}

/// The report as a person reads it, without colors.
fn report(error: &ConfigError) -> String {
    let handler =
        miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none()).with_width(100);
    let mut out = String::new();
    handler
        .render_report(&mut out, error)
        .expect("text can be written to a string");
    // The report pads its lines; what ends a line in blanks cannot be kept in a file of text.
    let lines: Vec<&str> = out.trim().lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}
