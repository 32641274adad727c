//! One WebSocket, with what went over it counted.

use std::fmt;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{client_async_with_config, WebSocketStream};

use crate::Error;

/// Thousands of links stand idle: each may take little memory.
const BUFFER: usize = 4096;

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Frames and bytes of a WebSocket, their heads included, without TLS and TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Frames to the server.
    pub frames_out: u64,
    /// Bytes to the server.
    pub bytes_out: u64,
    /// Frames from the server.
    pub frames_in: u64,
    /// Bytes from the server.
    pub bytes_in: u64,
}

impl Traffic {
    /// What came since `before`.
    pub fn since(&self, before: &Traffic) -> Traffic {
        Traffic {
            frames_out: self.frames_out - before.frames_out,
            bytes_out: self.bytes_out - before.bytes_out,
            frames_in: self.frames_in - before.frames_in,
            bytes_in: self.bytes_in - before.bytes_in,
        }
    }

    /// Takes in what another link had.
    pub fn add(&mut self, other: &Traffic) {
        self.frames_out += other.frames_out;
        self.bytes_out += other.bytes_out;
        self.frames_in += other.frames_in;
        self.bytes_in += other.bytes_in;
    }
}

/// Where all links of a run go.
#[derive(Clone)]
pub struct Target {
    url: String,
    authority: String,
    protocol: &'static str,
    tls: Option<TlsConnector>,
}

impl Target {
    /// Reads `ws://host:port/` or `wss://host:port/`; for the latter the server must show exactly `certificate` (a PEM file).
    pub fn new(
        url: &str,
        protocol: &'static str,
        certificate: Option<&str>,
    ) -> Result<Self, Error> {
        let (scheme, rest) = url.split_once("://").ok_or(Error::Url)?;
        let authority = rest.split('/').next().unwrap_or_default().to_owned();
        let tls = match scheme {
            "ws" => None,
            "wss" => Some(connector(certificate.ok_or(Error::Certificate)?)?),
            _ => return Err(Error::Url),
        };
        Ok(Self {
            url: url.to_owned(),
            authority,
            protocol,
            tls,
        })
    }

    /// Opens a link.
    pub async fn open(&self) -> Result<Link, Error> {
        let tcp = TcpStream::connect(&self.authority).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Io> = match &self.tls {
            None => Box::new(tcp),
            Some(connector) => {
                let name = ServerName::try_from("localhost").map_err(|_| Error::Url)?;
                Box::new(connector.connect(name, tcp).await?)
            }
        };
        let mut request = self.url.as_str().into_client_request().map_err(boxed)?;
        request.headers_mut().insert(
            "Sec-WebSocket-Protocol",
            HeaderValue::from_static(self.protocol),
        );
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(0);
        let (ws, _) = client_async_with_config(request, stream, Some(config))
            .await
            .map_err(boxed)?;
        Ok(Link {
            ws,
            traffic: Traffic::default(),
        })
    }
}

/// An open WebSocket.
pub struct Link {
    ws: WebSocketStream<Box<dyn Io>>,
    /// What went over it.
    pub traffic: Traffic,
}

impl Link {
    /// Sends a text frame.
    pub async fn send(&mut self, text: String) -> Result<(), Error> {
        self.traffic.frames_out += 1;
        // a client's frames carry a mask of four bytes
        self.traffic.bytes_out += head(text.len()) + 4 + text.len() as u64;
        Ok(self.ws.send(Message::text(text)).await.map_err(boxed)?)
    }

    /// The next text frame. Pings are answered on the way.
    pub async fn next(&mut self) -> Result<String, Error> {
        loop {
            let text = match self.ws.next().await {
                None | Some(Ok(Message::Close(_))) => return Err(Error::Closed),
                Some(Ok(Message::Text(text))) => text.as_str().to_owned(),
                // Kamailio sends SIP in binary frames to clients that did so
                Some(Ok(Message::Binary(bytes))) => String::from_utf8_lossy(&bytes).into_owned(),
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(boxed(error).into()),
            };
            self.traffic.frames_in += 1;
            self.traffic.bytes_in += head(text.len()) + text.len() as u64;
            return Ok(text);
        }
    }
}

/// Bytes of a frame's head without a mask (RFC 6455, 5.2).
fn head(len: usize) -> u64 {
    match len {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    }
}

fn boxed(
    error: tokio_tungstenite::tungstenite::Error,
) -> Box<tokio_tungstenite::tungstenite::Error> {
    Box::new(error)
}

fn connector(certificate: &str) -> Result<TlsConnector, Error> {
    let provider = Arc::new(ring::default_provider());
    let expected = CertificateDer::from_pem_file(certificate).map_err(|_| Error::Certificate)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| Error::Certificate)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned(expected)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes one certificate and no other: it is self-signed, so no authority vouches for it.
struct Pinned(CertificateDer<'static>);

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pinned")
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if shown == &self.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::UnknownIssuer.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_grows_with_the_frame() {
        assert_eq!([head(125), head(126), head(65_536)], [2, 4, 10]);
    }

    #[test]
    fn a_url_must_be_one_of_a_websocket() {
        assert!(Target::new("ws://127.0.0.1:80/", "sip", None).is_ok());
        for bad in ["http://127.0.0.1/", "127.0.0.1", "wss://127.0.0.1/"] {
            assert!(Target::new(bad, "sip", None).is_err(), "{bad}");
        }
    }
}
