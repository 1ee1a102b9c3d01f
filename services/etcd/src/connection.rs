//! A connection to one endpoint, and the calls on it.

use std::sync::Arc;

use futures_util::{Stream, stream};
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// Longest message taken. A page of a list and a fragment of a watch are far shorter by default.
const MAX_MESSAGE: usize = 32 << 20;

/// The credentials of a request.
pub(crate) type Token = MetadataValue<Ascii>;

/// A connection that may have ended. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    /// The endpoint's URL, for messages.
    pub(crate) endpoint: Arc<str>,
    /// Tells it from connections before and after it.
    pub(crate) generation: u64,
}

impl Connection {
    /// One request, one response.
    pub(crate) async fn unary<Q, R>(
        &self,
        path: &'static str,
        message: Q,
        token: Option<&Token>,
    ) -> Result<R, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.grpc().await?;
        let request = with_metadata(Request::new(message), token);
        let response = grpc.unary(request, PathAndQuery::from_static(path), ProstCodec::default()).await?;
        Ok(response.into_inner())
    }

    /// Requests sent as they come from the receiver, and a stream of responses.
    pub(crate) async fn streaming<Q, R>(
        &self,
        path: &'static str,
        requests: mpsc::Receiver<Q>,
        token: Option<&Token>,
    ) -> Result<Streaming<R>, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.grpc().await?;
        let request = with_metadata(Request::new(receiver_stream(requests)), token);
        let response =
            grpc.streaming(request, PathAndQuery::from_static(path), ProstCodec::default()).await?;
        Ok(response.into_inner())
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        Ok(grpc)
    }
}

/// Adds the token, and that a member without a leader shall refuse instead of letting the request wait.
fn with_metadata<T>(mut request: Request<T>, token: Option<&Token>) -> Request<T> {
    let metadata = request.metadata_mut();
    metadata.insert("hasleader", MetadataValue::from_static("true"));
    if let Some(token) = token {
        metadata.insert("token", token.clone());
    }
    request
}

fn receiver_stream<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send + 'static {
    stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)))
}
