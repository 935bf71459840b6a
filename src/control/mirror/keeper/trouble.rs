//! Why the file and the newest generation are not the same, for operators.

use super::*;

/// Why the routing file and the newest generation are not the same.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct FileError {
    pub path: String,
    /// What cannot be done: `read`, `take over` or `write`.
    #[schema(pattern = "^(read|take over|write)$")]
    pub what: &'static str,
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub since: SystemTime,
    /// Never empty.
    #[schema(min_items = 1)]
    pub problems: Vec<Problem>,
}

fn rfc3339<S: serde::Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&crate::telemetry::time::rfc3339_millis(*time))
}

impl RoutingFile {
    /// Shows an error, which is news only if it is another one.
    pub(super) fn set_error(&self, what: &'static str, problems: Vec<Problem>) {
        let path = self.file.path.display().to_string();
        let mut error = lock(&self.error);
        let known = error.as_ref();
        if known.is_some_and(|known| known.what == what && known.problems == problems) {
            return;
        }
        for problem in &problems {
            log::error!(target: "cellgate::control", "{path}: cannot {what} it: {problem}");
        }
        *error = Some(FileError {
            path,
            what,
            since: SystemTime::now(),
            problems,
        });
        self.failing.set(1);
    }

    /// The error is over, if it was one of these.
    pub(super) fn clear_error(&self, what: &[&str]) {
        let mut error = lock(&self.error);
        if error
            .as_ref()
            .is_some_and(|error| what.contains(&error.what))
        {
            *error = None;
            self.failing.set(0);
            log::info!(
                target: "cellgate::control",
                "{}: in order again",
                self.file.path.display()
            );
        }
    }
}
