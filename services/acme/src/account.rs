//! The account at the server, made at the first order and kept in the folder.

use std::path::Path;

use instant_acme::{Account, AccountCredentials, NewAccount};

use crate::config::AcmeConfig;
use crate::error::AcmeError;
use crate::folder;
use crate::transport::HttpsTransport;

/// The account in `file`, or a new one. By listing hosts the operator has agreed to the server's terms.
pub(crate) async fn load_or_create(
    config: &AcmeConfig,
    file: &Path,
    transport: &HttpsTransport,
) -> Result<Account, AcmeError> {
    let builder = Account::builder_with_http(Box::new(transport.clone()));
    match tokio::fs::read(file).await {
        Ok(content) => {
            let credentials: AccountCredentials =
                serde_json::from_slice(&content).map_err(|error| AcmeError::file(file, error))?;
            return Ok(builder.from_credentials(credentials).await?);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(AcmeError::file(file, error)),
    }
    let contact: Vec<&str> = config.contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) = builder.create(&new, config.directory.clone(), None).await?;
    let content = serde_json::to_vec(&credentials).map_err(AcmeError::key)?;
    folder::replace(file, &content)?;
    tracing::info!(directory = %config.directory, "an account was made at the ACME server");
    Ok(account)
}
