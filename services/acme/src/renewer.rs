//! The task that orders certificates when they are due, one after the other.

use std::error::Error;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hubspoke_tls::CertStore;
use instant_acme::Account;

use crate::account;
use crate::answers::Answers;
use crate::config::AcmeConfig;
use crate::error::AcmeError;
use crate::folder::{self, Folder};
use crate::order::{self, Respondents};
use crate::schedule;
use crate::transport::HttpsTransport;

/// How long an order may take.
const ORDER_TIMEOUT: Duration = Duration::from_secs(600);
/// The longest sleep: the system's clock may jump.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Orders certificates when they are due.
pub struct Renewer {
    config: AcmeConfig,
    folder: Folder,
    transport: HttpsTransport,
    respondents: Respondents,
    failures: AtomicU64,
}

/// When a host's certificate is due.
struct HostSchedule {
    host: String,
    /// In seconds since 1970.
    due: i64,
    /// Orders that have failed since the last certificate.
    failures: u32,
}

impl Renewer {
    /// Checks that the folder below `data_dir` can be written, and reads whom the server is trusted by. `store` has the
    /// [files](crate::cert_files) of these certificates.
    ///
    /// # Errors
    /// [`AcmeError::File`].
    pub fn new(config: AcmeConfig, data_dir: &Path, store: Arc<CertStore>) -> Result<Self, AcmeError> {
        let folder = Folder::of(&config, data_dir);
        folder.create()?;
        let transport = HttpsTransport::trusting(config.ca.as_deref())?;
        let respondents = Respondents { challenge: config.challenge, http: Arc::default(), tls: store };
        Ok(Self { config, folder, transport, respondents, failures: AtomicU64::new(0) })
    }

    /// What the server is answered in clear text.
    pub fn answers(&self) -> Arc<Answers> {
        self.respondents.http.clone()
    }

    /// Orders that have failed since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Orders and renews, until it is dropped. Boxed, so that it is compiled here and not where it is awaited.
    pub fn run(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { self.renew().await })
    }

    async fn renew(&self) {
        let mut account = None;
        let mut hosts: Vec<HostSchedule> = self.config.hosts.iter().map(|host| self.schedule(host)).collect();
        loop {
            for host in hosts.iter_mut().filter(|host| host.due <= now()) {
                let ordered = tokio::time::timeout(ORDER_TIMEOUT, self.order(&mut account, &host.host)).await;
                self.respondents.clear();
                let ordered = ordered.unwrap_or(Err(AcmeError::Timeout(ORDER_TIMEOUT.as_secs())));
                match ordered {
                    Ok(()) => {
                        *host = self.schedule(&host.host);
                        let days = host.due.saturating_sub(now()) / 86_400;
                        tracing::info!(host = host.host, renewal_days = days, "a new certificate was issued");
                    }
                    Err(error) => {
                        self.failures.fetch_add(1, Relaxed);
                        host.failures += 1;
                        let pause = schedule::pause(host.failures, rand::random());
                        host.due = now().saturating_add_unsigned(pause.as_secs());
                        let retry_s = pause.as_secs();
                        let error = &error as &dyn Error;
                        tracing::warn!(
                            host = host.host,
                            error,
                            retry_s,
                            "no new certificate; the last one stays in use"
                        );
                    }
                }
            }
            let next = hosts.iter().map(|host| host.due).min().unwrap_or(i64::MAX);
            let pause = u64::try_from(next.saturating_sub(now())).unwrap_or(0).max(1);
            tokio::time::sleep(Duration::from_secs(pause).min(LONGEST_SLEEP)).await;
        }
    }

    /// When the certificate that is kept for a host is due; now, if there is none that can be used.
    fn schedule(&self, host: &str) -> HostSchedule {
        let content = std::fs::read(self.folder.cert(host)).unwrap_or_default();
        let due = match hubspoke_tls::validity(&content) {
            Some((not_before, not_after)) => schedule::renewal(not_before, not_after, rand::random()),
            None => 0,
        };
        HostSchedule { host: host.to_owned(), due, failures: 0 }
    }

    async fn order(&self, account: &mut Option<Account>, host: &str) -> Result<(), AcmeError> {
        let file = self.folder.account();
        let current = match account {
            Some(account) => account,
            None => account.insert(account::load_or_create(&self.config, &file, &self.transport).await?),
        };
        let ordered = order::certificate(current, host, &self.respondents).await;
        if ordered.as_ref().is_err_and(AcmeError::is_unknown_account) {
            *account = None;
            // The next order makes a new one.
            std::fs::remove_file(&file).map_err(|error| AcmeError::file(&file, error))?;
        }
        folder::replace(&self.folder.cert(host), ordered?.as_bytes())?;
        self.respondents.tls.reload();
        Ok(())
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
