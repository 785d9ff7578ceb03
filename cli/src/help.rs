//! `mobula --help`: the commands, grouped by question.

use clap::Command;

/// Each question with the commands that answer it. The best one to begin with comes first.
const GROUPS: [(&str, &[&str]); 5] = [
    ("See what is going on", &["status", "top", "view", "list", "summary", "memory"]),
    ("Find out why", &["why", "stack", "logs", "postmortem"]),
    ("See it over time", &["timeline", "metrics"]),
    ("End something", &["cancel", "kill"]),
    ("Run sessions", &["start", "stop", "store"]),
];

/// The command, with a help that lists its subcommands in groups.
pub(crate) fn grouped(command: Command) -> Command {
    let mut left: Vec<(String, String)> = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            (command.get_name().to_owned(), about.trim_end_matches('.').to_owned())
        })
        .collect();
    let mut text = String::new();
    for (title, names) in GROUPS {
        let found: Vec<_> = names
            .iter()
            .filter_map(|name| Some(left.remove(left.iter().position(|(its, _)| its == name)?)))
            .collect();
        append(&mut text, title, &found);
    }
    append(&mut text, "Others", &left);
    // Braces would be a part of the template.
    let text = text.replace('{', "(").replace('}', ")");
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{text}Options:\n{{options}}\n\n\
         `mobula COMMAND --help` explains a command. All but `store` have --json. They use the session that runs; if\n\
         several run, name one with --session or --socket.\n"
    ))
}

fn append(text: &mut String, title: &str, commands: &[(String, String)]) {
    if commands.is_empty() {
        return;
    }
    *text += &format!("{title}:\n");
    for (name, about) in commands {
        *text += &format!("  {name:<12}{}\n", first_sentence(about));
    }
    text.push('\n');
}

/// The first part of a text, which fits on a line.
fn first_sentence(text: &str) -> &str {
    let ends = ["\n", "; ", ": ", ". ", ", or "];
    let end = ends.iter().filter_map(|end| text.find(end)).min().unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::Options;

    #[test]
    fn each_command_has_json_and_a_choice_of_session() {
        fn check(command: &Command, path: &str) {
            if command.has_subcommands() {
                return command
                    .get_subcommands()
                    .for_each(|part| check(part, &format!("{path} {}", part.get_name())));
            }
            let has = |long: &str| command.get_arguments().any(|argument| argument.get_long() == Some(long));
            // `store` is a server and has the socket at which it listens; `start` makes the session.
            let expected: &[&str] = match command.get_name() {
                "store" => &["socket"],
                "start" => &["json"],
                _ => &["json", "session", "socket"],
            };
            for long in expected {
                assert!(has(long), "mobula{path} has no --{long}");
            }
        }
        check(&Options::command(), "");
    }

    #[test]
    fn each_command_has_its_group_and_its_line() {
        let mut command = grouped(Options::command());
        let help = command.render_help().to_string();
        assert!(!help.contains("Others:"), "a command has no group:\n{help}");
        for name in ["status", "why", "top", "metrics", "cancel", "store"] {
            assert!(help.contains(&format!("\n  {name} ")), "{name} is missing:\n{help}");
        }
        assert!(help.contains("Options:\n  -h, --help"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
    }
}
