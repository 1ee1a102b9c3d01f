//! One order: the server verifies the host, and issues a certificate for a new key.

use std::sync::Arc;
use std::time::Duration;

use hubspoke_tls::CertStore;
use instant_acme::{
    Account, AuthorizationStatus, ChallengeHandle, ChallengeType, Identifier, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::answers::Answers;
use crate::config::AcmeChallenge;
use crate::error::AcmeError;

/// The protocol in which a server asks for TLS-ALPN-01 (RFC 8737, 6.2): a server must speak it, and nothing follows the
/// handshake.
pub const TLS_ALPN: &[u8] = b"acme-tls/1";

/// How often the server is asked whether it has made up its mind, and for how long.
const POLL: RetryPolicy = RetryPolicy::new().backoff(1.5).timeout(Duration::from_secs(120));

/// Who answers challenges.
pub(crate) struct Respondents {
    pub(crate) challenge: AcmeChallenge,
    pub(crate) http: Arc<Answers>,
    pub(crate) tls: Arc<CertStore>,
}

/// Orders a certificate: chain and key in PEM.
pub(crate) async fn certificate(
    account: &Account,
    host: &str,
    respondents: &Respondents,
) -> Result<String, AcmeError> {
    let host = host.to_ascii_lowercase();
    let identifiers = [Identifier::Dns(host.clone())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    respondents.answer(&mut order, &host).await?;
    let ready = order.poll_ready(&POLL).await;
    if !matches!(ready, Ok(OrderStatus::Ready)) {
        if let Some(why) = refusal(&mut order).await {
            return Err(AcmeError::NotVerified(why));
        }
        ready?;
        return Err(AcmeError::NotVerified("no reason is given".to_owned()));
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AcmeError::key)?;
    let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(AcmeError::key)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(AcmeError::key)?;
    order.finalize_csr(request.der()).await?;
    let chain = order.poll_certificate(&POLL).await?;
    Ok(format!("{}\n{}", chain.trim_end(), key.serialize_pem()))
}

/// Why the server could not verify the host.
async fn refusal(order: &mut Order) -> Option<String> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        let failed = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = failed {
            return Some(problem.to_string());
        }
    }
    None
}

impl Respondents {
    async fn answer(&self, order: &mut Order, host: &str) -> Result<(), AcmeError> {
        let (kind, name) = match self.challenge {
            AcmeChallenge::Http01 => (ChallengeType::Http01, "http-01"),
            AcmeChallenge::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
        };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Pending {
                continue; // verified not long ago, or refused, which the order will say
            }
            let mut challenge = authorization.challenge(kind.clone()).ok_or(AcmeError::NoChallenge(name))?;
            self.prepare(&challenge, host)?;
            challenge.set_ready().await?;
        }
        Ok(())
    }

    fn prepare(&self, challenge: &ChallengeHandle<'_>, host: &str) -> Result<(), AcmeError> {
        let authorization = challenge.key_authorization();
        match self.challenge {
            AcmeChallenge::Http01 => self.http.put(&challenge.token, authorization.as_str()),
            AcmeChallenge::TlsAlpn01 => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AcmeError::key)?;
                let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(AcmeError::key)?;
                let digest = authorization.digest();
                params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_ref())];
                let cert = params.self_signed(&key).map_err(AcmeError::key)?;
                let put = self.tls.put_challenge(host, cert.der().clone(), key.serialize_der());
                put.map_err(AcmeError::key)?;
            }
        }
        Ok(())
    }

    /// The order is over.
    pub(crate) fn clear(&self) {
        self.http.clear();
        self.tls.clear_challenges();
    }
}
