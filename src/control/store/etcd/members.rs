//! The members of an etcd cluster: which one a request is sent to, and what a failure
//! means.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Status};

use super::connect;
use crate::control::settings::EtcdSettings;
use crate::control::store::StoreError;

/// The deadline of a request to one member.
const REQUEST: Duration = Duration::from_secs(5);

/// The deadline of a request over all members.
const ALL: Duration = Duration::from_secs(12);

/// If less time than this is left, no further member is asked.
const LEAST: Duration = Duration::from_secs(1);

/// The longest pause after a round over all members; random below it.
const PAUSE: Duration = Duration::from_millis(300);

/// The longest password, in bytes.
const LONGEST_PASSWORD: usize = 8 << 10;

/// The members of the settings.
pub(super) struct Members {
    members: Vec<Member>,
    /// Modulo the number of members, the one that requests are sent to. Incremented when it
    /// does not answer.
    current: AtomicUsize,
    login: Option<Login>,
}

struct Member {
    /// Its URL, as in the settings.
    name: String,
    channel: Channel,
    /// Made by the first request, as it logs in.
    client: Mutex<Option<Client>>,
}

struct Login {
    username: String,
    password_file: Option<PathBuf>,
}

/// Why a request failed.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    /// With the member's name.
    message: String,
    /// The request may have been executed nevertheless.
    pub doubtful: bool,
    /// Another member, or a later attempt, may succeed.
    passing: bool,
    /// A new login is necessary.
    stale: bool,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        Self(trouble.message)
    }
}

impl Members {
    pub fn new(settings: &EtcdSettings) -> Result<Self, StoreError> {
        if settings.endpoints.is_empty() {
            return Err(StoreError(
                "etcd: no endpoints (want at least one)".to_owned(),
            ));
        }
        let tls = connect::tls(settings)?;
        let member = |url: &url::Url| {
            Ok(Member {
                name: url.as_str().trim_end_matches('/').to_owned(),
                channel: connect::channel(url, &tls)?,
                client: Mutex::default(),
            })
        };
        let members = settings.endpoints.iter().map(member);
        let members: Vec<Member> = members.collect::<Result<_, StoreError>>()?;
        let login = settings.username.as_ref().map(|username| Login {
            username: username.clone(),
            password_file: settings.password_file.clone(),
        });
        if let Some(login) = &login {
            login.password()?;
        }
        Ok(Self {
            // Random, so that several control planes do not all use the first.
            current: AtomicUsize::new(rand::random_range(0..members.len())),
            members,
            login,
        })
    }

    /// The URLs of all members, for operators.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.members.iter().map(|member| &*member.name).collect();
        names.join(",")
    }

    /// Sends a request to one member, and to the next one if it does not answer in time. So
    /// the request may be executed more than once, and an earlier attempt after a later one.
    ///
    /// # Errors
    /// No member answered in time, or one refused. The error is doubtful if any attempt may
    /// have been executed.
    pub async fn ask<T, F>(&self, request: impl Fn(Client) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + ALL;
        let mut doubtful = false;
        for tries in 1_usize.. {
            let at = self.current.load(Ordering::Relaxed);
            let Some(member) = self.members.get(at % self.members.len()) else {
                break;
            };
            let mut trouble = match self.ask_one(member, &request, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => trouble,
            };
            doubtful |= trouble.doubtful;
            trouble.doubtful = doubtful;
            if trouble.stale {
                member.forget_client();
            }
            if !trouble.passing {
                return Err(trouble);
            }
            log::debug!(target: "cellgate::control", "{trouble}");
            if trouble.stale && tries < self.members.len() {
                continue;
            }
            let _ = self.current.compare_exchange(
                at,
                at.wrapping_add(1),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if tries.is_multiple_of(self.members.len()) {
                sleep(rand::random_range(PAUSE / 4..=PAUSE)).await;
            }
            if Instant::now() + LEAST >= deadline {
                return Err(trouble);
            }
        }
        Err(Trouble::never("etcd: no endpoints".to_owned()))
    }

    async fn ask_one<T, F>(
        &self,
        member: &Member,
        request: &impl Fn(Client) -> F,
        deadline: Instant,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let left = deadline.saturating_duration_since(Instant::now());
        let most = REQUEST.min(left);
        let client = match timeout(most, self.client(member)).await {
            Ok(client) => client?,
            Err(_) => return Err(Trouble::late(member, most, false)),
        };
        match timeout(most, request(client)).await {
            Ok(answer) => answer.map_err(|error| Trouble::of(member, &error)),
            Err(_) => Err(Trouble::late(member, most, true)),
        }
    }

    async fn client(&self, member: &Member) -> Result<Client, Trouble> {
        if let Some(client) = &*member.lock() {
            return Ok(client.clone());
        }
        let mut options = ConnectOptions::new()
            // A member without a leader returns an error instead of waiting for one.
            .with_require_leader(true);
        if let Some(login) = &self.login {
            let password = login
                .password()
                .map_err(|error| Trouble::never(error.to_string()))?;
            // The client does not refresh its token: that would use an old password.
            options = options.with_user(&*login.username, password);
        }
        let channel = etcd_client::Channel::Tonic(member.channel.clone());
        let client = Client::from_channel(channel, Some(options)).await;
        let client = client.map_err(|error| {
            // Only a login was sent.
            let mut trouble = Trouble::of(member, &error);
            trouble.doubtful = false;
            trouble
        })?;
        *member.lock() = Some(client.clone());
        Ok(client)
    }
}

impl Member {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_client(&self) {
        *self.lock() = None;
    }
}

impl Login {
    fn password(&self) -> Result<String, StoreError> {
        let Some(path) = &self.password_file else {
            return Ok(String::new());
        };
        let shown = path.display().to_string().escape_debug().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            StoreError(format!("etcd: password_file: cannot read {shown}: {error}"))
        })?;
        let password = text.trim();
        match password.len() {
            1..=LONGEST_PASSWORD => Ok(password.to_owned()),
            bytes => Err(StoreError(format!(
                "etcd: password_file: {shown} has a password of {bytes} bytes (want 1 to {LONGEST_PASSWORD})"
            ))),
        }
    }
}

impl Trouble {
    fn never(message: String) -> Self {
        Self {
            message,
            doubtful: false,
            passing: false,
            stale: false,
        }
    }

    fn late(member: &Member, after: Duration, doubtful: bool) -> Self {
        Self {
            message: format!(
                "etcd {}: no answer within {} ms",
                member.name,
                after.as_millis()
            ),
            doubtful,
            passing: true,
            stale: false,
        }
    }

    fn of(member: &Member, error: &Error) -> Self {
        let name = &member.name;
        let Error::GRpcStatus(status) = error else {
            return Self {
                message: format!("etcd {name}: {error}"),
                doubtful: true,
                passing: true,
                stale: false,
            };
        };
        let verdict = Verdict::of(status);
        Self {
            message: format!("etcd {name}: {}", words(status)),
            doubtful: verdict == Verdict::Doubtful,
            passing: matches!(verdict, Verdict::Doubtful | Verdict::Later | Verdict::Stale),
            stale: matches!(verdict, Verdict::Stale | Verdict::LoggedOut),
        }
    }
}

/// What an error means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may have been executed.
    Doubtful,
    /// It was not executed; a later attempt or another member may succeed.
    Later,
    /// As [`Later`](Self::Later), after a new login.
    Stale,
    /// The login was refused.
    LoggedOut,
    /// It was refused; repeating it is useless.
    Never,
}

impl Verdict {
    pub fn of(status: &Status) -> Self {
        // These errors have no gRPC code of their own.
        match status.message() {
            "etcdserver: no leader" | "etcdserver: too many requests" => return Self::Later,
            "etcdserver: revision of auth store is old" => return Self::Stale,
            "etcdserver: authentication failed, invalid user ID or password" => {
                return Self::LoggedOut;
            }
            _ => {}
        }
        match status.code() {
            _ if never_sent(status) => Self::Later,
            Code::Unauthenticated => Self::Stale,
            Code::InvalidArgument
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::NotFound
            | Code::Unimplemented
            | Code::ResourceExhausted => Self::Never,
            _ => Self::Doubtful,
        }
    }
}

/// Whether it was not sent, for lack of a connection.
fn never_sent(status: &Status) -> bool {
    chain(status).any(|error| error.is::<ConnectError>())
}

fn chain(
    error: &dyn std::error::Error,
) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |error| error.source())
}

/// The status and its causes, without repetition.
fn words(status: &Status) -> String {
    let mut words = match status.message() {
        "" => status.code().description().to_lowercase(),
        message => message.escape_debug().to_string(),
    };
    for cause in chain(status) {
        let cause = cause.to_string();
        if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}
