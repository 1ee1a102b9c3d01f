//! HTTPS requests to an ACME server, each on a connection of its own: there are a dozen per certificate and month.
//!
//! instant-acme's own client would bring a connection pool, HTTP/2 and a second way to verify certificates.

use std::error::Error;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::error::AcmeError;

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest response, in bytes: a chain of a dozen certificates.
const MAX_BODY: usize = 256 << 10;

type BoxError = Box<dyn Error + Send + Sync>;

/// Sends requests by HTTPS to servers that it trusts.
#[derive(Clone)]
pub(crate) struct HttpsTransport {
    connector: TlsConnector,
}

impl HttpsTransport {
    /// Trusts the CAs in a file, or else the system's.
    pub(crate) fn trusting(ca: Option<&Path>) -> Result<Self, AcmeError> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(file) => {
                let invalid = |why: &dyn ToString| AcmeError::file(file, why.to_string());
                let certs = CertificateDer::pem_file_iter(file).map_err(|error| invalid(&error))?;
                for cert in certs {
                    roots.add(cert.map_err(|error| invalid(&error))?).map_err(|error| invalid(&error))?;
                }
                if roots.is_empty() {
                    return Err(invalid(&"no certificate in PEM (-----BEGIN CERTIFICATE-----)"));
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                let (added, _) = roots.add_parsable_certificates(found.certs);
                if added == 0 {
                    let file = Path::new("/etc/ssl/certs/ca-certificates.crt");
                    return Err(AcmeError::file(
                        file,
                        "the system has no CA certificates; set gateway.tls.acme.ca",
                    ));
                }
            }
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(AcmeError::key)?;
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    async fn send(self, mut request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, BoxError> {
        let uri = request.uri().clone();
        let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(format!("{uri} is not an https URL").into());
        };
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let stream = TcpStream::connect((&*name, authority.port_u16().unwrap_or(443))).await?;
        let stream = self.connector.connect(ServerName::try_from(name)?, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).parse::<Uri>()?;
        request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str())?);
        *request.uri_mut() = path;
        let exchange = async {
            let (parts, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
            Ok(BytesResponse { parts, body: Box::new(body) })
        };
        let driven = async {
            // The exchange learns of an error by itself.
            let _ = connection.await;
            std::future::pending().await
        };
        tokio::select! {
            response = exchange => response,
            never = driven => never,
        }
    }
}

impl HttpClient for HttpsTransport {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let uri = request.uri().clone();
        let sent = self.clone().send(request);
        Box::pin(async move {
            let response = match tokio::time::timeout(TIMEOUT, sent).await {
                Ok(response) => response,
                Err(_) => Err(format!("no response within {} s", TIMEOUT.as_secs()).into()),
            };
            response.map_err(|error| instant_acme::Error::Other(format!("{uri}: {error}").into()))
        })
    }
}
