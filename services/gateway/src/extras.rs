//! What the gateway does for a service beside routing, if its configuration asks for that: redirects to the slash, CORS,
//! compression, and asking another service whether a request may pass. Pure, but for the encoder's memory.
//!
//! A service without any of it costs its requests one comparison.

use std::sync::Arc;

use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, request};

pub(crate) use self::auth::AuthPolicy;
use self::compress::Coding;
pub(crate) use self::cors::CorsPolicy;
pub(crate) use self::encoder::Encoder;
use self::vary::add_vary;
use crate::config::{InvalidExtra, ServiceConfig};
use crate::memory::Memory;

mod auth;
mod compress;
mod cors;
mod encoder;
pub(crate) mod index;
mod slash;
mod vary;

/// What one service has beside its routes.
#[derive(Debug, PartialEq)]
pub(crate) struct Extras {
    slash: bool,
    compress: bool,
    cors: Option<CorsPolicy>,
    pub(crate) auth: Option<AuthPolicy>,
}

impl Extras {
    /// `None` if the service has none.
    ///
    /// # Errors
    /// [`InvalidExtra`].
    pub(crate) fn of(service: &str, config: &ServiceConfig) -> Result<Option<Arc<Self>>, InvalidExtra> {
        let extras = Self {
            slash: config.slash,
            compress: config.compress,
            cors: config.cors.as_ref().map(CorsPolicy::new).transpose()?,
            auth: config.auth.as_ref().map(|auth| AuthPolicy::new(auth, service)).transpose()?,
        };
        let is_any = extras.slash || extras.compress || extras.cors.is_some() || extras.auth.is_some();
        Ok(is_any.then(|| Arc::new(extras)))
    }

    /// The response to a request that the gateway answers itself. `by_host`: the request has no prefix.
    pub(crate) fn answer(&self, parts: &request::Parts, by_host: bool) -> Option<Response<()>> {
        if let Some(cors) = self.cors.as_ref().filter(|_| cors::is_preflight(&parts.method, &parts.headers)) {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::NO_CONTENT;
            cors.preflight(&parts.headers, response.headers_mut());
            return Some(response);
        }
        let location = slash::location(&parts.uri).filter(|_| self.slash && !by_host)?;
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(LOCATION, location);
        Some(response)
    }
}

/// What the response to one request needs.
pub(crate) struct ResponseExtras {
    extras: Arc<Extras>,
    /// The origin that may read the response.
    origin: Option<HeaderValue>,
    /// The coding that the client prefers.
    coding: Option<Coding>,
    is_head: bool,
}

impl ResponseExtras {
    /// `None` if the response is passed on as it is.
    pub(crate) fn of(extras: &Arc<Extras>, parts: &request::Parts) -> Option<Box<Self>> {
        if !extras.compress && extras.cors.is_none() {
            return None;
        }
        Some(Box::new(Self {
            origin: extras.cors.as_ref().and_then(|cors| cors.allowed(&parts.headers)),
            coding: Coding::preferred(&parts.headers).filter(|_| extras.compress),
            is_head: parts.method == Method::HEAD,
            extras: extras.clone(),
        }))
    }

    /// Lets the page that sent the request read the response.
    pub(crate) fn allow(&self, headers: &mut HeaderMap) {
        if let Some(cors) = &self.extras.cors {
            cors.allow(self.origin.as_ref(), headers);
        }
    }

    /// Prepares the head of a response for its compression. `None` if it is not compressed; so it is if many others are
    /// at the moment.
    pub(crate) fn compress(
        &self,
        status: StatusCode,
        headers: &mut HeaderMap,
        memory: &Memory,
    ) -> Option<Box<Encoder>> {
        if !self.extras.compress || self.is_head || !compress::is_worth_it(status, headers) {
            return None;
        }
        add_vary(headers, "accept-encoding");
        let coding = self.coding?;
        let encoder = Encoder::new(coding, &memory.encoders)?;
        compress::encoded(headers, coding);
        Some(Box::new(encoder))
    }
}
