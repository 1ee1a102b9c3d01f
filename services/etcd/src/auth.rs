//! Authentication by user and password: a token that is fetched when it is needed first, and again when it is refused.

use std::path::PathBuf;

use tokio::sync::Mutex;
use tonic::{Code, Status};

use crate::config::Config;
use crate::connection::{Connection, Token};
use crate::proto::{AuthenticateRequest, AuthenticateResponse};

const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

#[derive(Debug)]
pub(crate) struct Auth {
    credentials: Option<Credentials>,
    session: Mutex<AuthSession>,
}

#[derive(Debug)]
struct Credentials {
    user: String,
    password_file: PathBuf,
}

/// The result of the last authentication.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AuthSession {
    /// `None` if authentication is off, or none was needed yet.
    pub(crate) token: Option<Token>,
    /// Counts authentications.
    number: u64,
}

impl Auth {
    pub(crate) fn new(config: &Config) -> Self {
        let credentials = config.user.clone().zip(config.password_file.clone());
        let credentials = credentials.map(|(user, password_file)| Credentials { user, password_file });
        Self { credentials, session: Mutex::new(AuthSession { token: None, number: 0 }) }
    }

    /// The session in use, or a new one if there is none or `refused` is it.
    pub(crate) async fn session(
        &self,
        connection: &Connection,
        refused: Option<&AuthSession>,
    ) -> Result<AuthSession, Status> {
        let mut session = self.session.lock().await;
        let Some(credentials) = &self.credentials else {
            return match refused {
                None => Ok(session.clone()),
                Some(_) => Err(Status::unauthenticated("etcd requires a user, and none is configured")),
            };
        };
        if session.number == 0 || refused == Some(&*session) {
            session.token = credentials.authenticate(connection).await?;
            session.number += 1;
        }
        Ok(session.clone())
    }
}

impl Auth {
    /// Authenticates anew before the next request.
    pub(crate) async fn forget(&self) {
        self.session.lock().await.number = 0;
    }
}

impl Credentials {
    async fn authenticate(&self, connection: &Connection) -> Result<Option<Token>, Status> {
        let file = self.password_file.display();
        let password = tokio::fs::read_to_string(&self.password_file)
            .await
            .map_err(|error| Status::unauthenticated(format!("can't read {file}: {error}")))?;
        let name = self.user.clone();
        let request = AuthenticateRequest { name, password: password.trim().to_owned() };
        match connection.unary::<_, AuthenticateResponse>(AUTHENTICATE, request, None).await {
            Ok(response) => {
                let token = response.token.parse();
                token.map(Some).map_err(|_| Status::unauthenticated("etcd's token can't be sent in a header"))
            }
            Err(status) if status.code() == Code::FailedPrecondition => {
                tracing::warn!(user = self.user, "etcd's authentication is off; the password is not used");
                Ok(None)
            }
            Err(status) => Err(status),
        }
    }
}
