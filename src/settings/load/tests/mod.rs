//! Settings as an operator meets them: text in, settings or problems out.
mod control_plane;
mod pingora;
mod problems;
mod sections;
mod shipped;

use super::*;

/// One setting: its default, a good value, a bad one, and what is said of it.
struct Row {
    key: &'static str,
    show: fn(&Settings) -> String,
    default: &'static str,
    good: &'static str,
    shown: &'static str,
    bad: &'static [(&'static str, &'static str)],
}

impl Row {
    fn check(&self) {
        let Row { key, show, .. } = self;
        let default = load("", &[]).unwrap();
        assert_eq!(show(&default), self.default, "{key}: default");

        let good = load(&document(key, self.good), &[]);
        let shown = good.map(|settings| show(&settings));
        assert_eq!(shown.as_deref(), Ok(self.shown), "{key}: {}", self.good);

        for (bad, message) in self.bad {
            let refused = load(&document(key, bad), &[]);
            let line = key.split('.').count();
            let refused = refused.map(|_| format!("{key}: {bad} was taken"));
            let [problem] = refused.unwrap_err().try_into().unwrap();
            assert_eq!(problem.position.map(|(line, _)| line), Some(line), "{key}");
            assert_eq!(problem.message, *message, "{key}: {bad}");
            assert!(problem.key.starts_with(key), "{key}: {}", problem.key);
        }
    }
}

/// A file with one key: `a.b` as `a:` and, indented in the next line, `b: value`.
fn document(key: &str, value: &str) -> String {
    let names: Vec<&str> = key.split('.').collect();
    let lines = names.iter().enumerate().map(|(depth, name)| {
        let value = if depth + 1 == names.len() { value } else { "" };
        format!("{}{name}: {value}\n", "  ".repeat(depth))
    });
    lines.collect()
}

fn load(text: &str, env: &[(&str, &str)]) -> Result<Settings, Vec<SettingsProblem>> {
    load_as(None, text, env)
}

fn load_as(
    file: Option<&str>,
    text: &str,
    env: &[(&str, &str)],
) -> Result<Settings, Vec<SettingsProblem>> {
    Settings::parse(file.map(Path::new), text, &|name| {
        let value = env.iter().find(|(known, _)| *known == name);
        value.map(|(_, value)| (*value).to_owned())
    })
}

/// What is printed for a file that is refused.
fn refused(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    let problems = load_as(Some("edge.yaml"), text, env).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}
