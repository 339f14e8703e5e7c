//! Pages for machines: figures and health over plain HTTP/1.1, one request per connection.
//!
//! ```text
//! listen ─▶ room? ─▶ read a request (≤ 5 s, ≤ 8 KiB) ─▶ page ─▶ write (≤ 5 s with the reading) ─▶ close
//!            no: the oldest connection makes room
//! ```
//! Promises: nothing a client does or leaves undone delays another for long or costs more than its bounds; nothing is spawned; what is asked
//! changes nothing. Refuses: methods other than GET and HEAD, bodies, unknown paths, more connections than `OPEN_MAX`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep, timeout};

use super::accept::{ListenError, listen};

/// Connections open at once; the oldest makes room for another.
const OPEN_MAX: usize = 16;
/// Longest exchange.
const EXCHANGE_MAX: Duration = Duration::from_secs(5);
/// Most bytes of a request; hyper's least.
const REQUEST_MAX: usize = 8192;
/// Pause after the process ran out of descriptors: trying at once would spin.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Whether all is well: 200, else 503.
    pub good: bool,
    /// What the text is.
    pub kind: PageKind,
    /// The text.
    pub text: String,
}

/// What a page is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// A line for people.
    Plain,
    /// Prometheus' text format.
    Metrics,
    /// JSON.
    Json,
}

/// Who makes the pages.
pub trait Pages: Send + Sync {
    /// The page of a path; none: there is no such page.
    fn page(&self, path: &str) -> Option<Page>;
}

/// A node as its pages tell of it.
pub trait Health: Send + Sync {
    /// Its figures, as Prometheus reads them.
    fn metrics(&self) -> String;
    /// The same and more, as JSON.
    fn status(&self) -> String;
    /// Whether it gives a sign of life.
    fn is_live(&self) -> bool;
    /// What keeps it from its work, if anything does.
    fn trouble(&self) -> Option<String>;
}

impl<H: Health> Pages for H {
    fn page(&self, path: &str) -> Option<Page> {
        let health = |trouble: Option<String>| Page {
            good: trouble.is_none(),
            kind: PageKind::Plain,
            text: trouble.map_or_else(|| "ok\n".to_owned(), |t| format!("{t}\n")),
        };
        Some(match path {
            "/metrics" => Page { good: true, kind: PageKind::Metrics, text: self.metrics() },
            "/statusz" => Page { good: true, kind: PageKind::Json, text: self.status() },
            "/livez" => health((!self.is_live()).then(|| "no sign of life for 5 s".to_owned())),
            "/readyz" => health(self.trouble()),
            _ => return None,
        })
    }
}

/// A listener whose pages are served by [`Self::serve`].
#[derive(Debug)]
pub struct PageListener {
    listener: TcpListener,
}

impl PageListener {
    /// Listens.
    ///
    /// # Errors
    /// [`ListenError`].
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let listener = listen(address, false).map_err(|e| ListenError::new(address, e))?;
        Ok(Self { listener })
    }

    /// Where, with the port the kernel chose.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until it is dropped.
    pub async fn serve(self, pages: Arc<dyn Pages>) {
        let mut serving = Serving { listener: self.listener, pages, open: VecDeque::new(), pause: None };
        std::future::poll_fn(move |cx| serving.poll(cx)).await;
    }
}

type Exchange = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Serving {
    listener: TcpListener,
    pages: Arc<dyn Pages>,
    /// Oldest first.
    open: VecDeque<Exchange>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Serving {
    /// Never ready.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.open.retain_mut(|exchange| exchange.as_mut().poll(cx).is_pending());
        loop {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.pause = None;
            }
            match self.listener.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => self.pause = Some(Box::pin(sleep(OUT_OF_RESOURCES))),
                Poll::Ready(Ok((socket, _))) => {
                    if self.open.len() >= OPEN_MAX {
                        self.open.pop_front();
                    }
                    let mut exchange: Exchange = Box::pin(exchange(socket, Arc::clone(&self.pages)));
                    if exchange.as_mut().poll(cx).is_pending() {
                        self.open.push_back(exchange);
                    }
                }
            }
        }
    }
}

async fn exchange(socket: TcpStream, pages: Arc<dyn Pages>) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let response = answer(request.method(), request.uri().path(), &*pages);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(EXCHANGE_MAX).max_buf_size(REQUEST_MAX);
    // whatever goes wrong is the client's
    let _ended = timeout(EXCHANGE_MAX, server.serve_connection(TokioIo::new(socket), service)).await;
}

fn answer(method: &Method, path: &str, pages: &dyn Pages) -> Response<Text> {
    let plain = |good, text: &str| Page { good, kind: PageKind::Plain, text: text.to_owned() };
    let (status, page) = if method != Method::GET && method != Method::HEAD {
        (StatusCode::METHOD_NOT_ALLOWED, plain(false, "only GET\n"))
    } else {
        match pages.page(path) {
            Some(page) => (if page.good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, page),
            None => (StatusCode::NOT_FOUND, plain(false, "there are /metrics, /livez, /readyz and /statusz\n")),
        }
    };
    let kind = match page.kind {
        PageKind::Plain => "text/plain; charset=utf-8",
        PageKind::Metrics => "text/plain; version=0.0.4; charset=utf-8",
        PageKind::Json => "application/json",
    };
    let mut response = Response::new(Text(Some(page.text.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The body of an answer, in one piece.
struct Text(Option<Bytes>);

impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |text| text.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    struct Fixed;

    impl Pages for Fixed {
        fn page(&self, path: &str) -> Option<Page> {
            let text = "x".repeat(100_000);
            match path {
                "/metrics" => Some(Page { good: true, kind: PageKind::Metrics, text }),
                "/readyz" => Some(Page { good: false, kind: PageKind::Plain, text: "not ready: disk\n".into() }),
                _ => None,
            }
        }
    }

    fn serve() -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = PageListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        (listener.address().unwrap(), tokio::spawn(listener.serve(Arc::new(Fixed))))
    }

    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        // a client that sends nonsense may be cut off while it still writes
        let _sent = socket.write_all(request).await;
        let mut answer = Vec::new();
        let _reset = socket.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn a_page_is_told_whole_with_its_kind_and_unknown_ones_are_not_there() {
        let (address, _serving) = serve();

        let metrics = ask(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let unready = ask(address, b"GET /readyz HTTP/1.0\r\n\r\n").await;
        let head = ask(address, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let other = ask(address, b"GET /etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let post = ask(address, b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx").await;

        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n") && metrics.ends_with("xxxx"), "{}", metrics.len());
        assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{}", &metrics[..300]);
        assert!(unready.starts_with("HTTP/1.0 503 ") && unready.ends_with("not ready: disk\n"), "{unready}");
        assert!(head.contains("content-length: 100000") && !head.contains("xxxx"), "{head}");
        assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
        assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
    }

    #[tokio::test]
    async fn malformed_huge_and_silent_clients_hurt_nobody() {
        let (address, serving) = serve();
        let mut silent = Vec::new();
        for _ in 0..OPEN_MAX * 4 {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.unwrap();
            silent.push(socket);
        }
        let huge = [&b"GET / HTTP/1.1\r\nX: "[..], &vec![b'y'; 1 << 20]].concat();
        for nonsense in
            [&b"\0\xff\x16\x03\x01 nonsense\r\n\r\n"[..], &huge, b"GET  HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
        {
            let answer = ask(address, nonsense).await;
            assert!(!answer.contains(" 200 "), "{answer}");
        }

        let began = Instant::now();
        let metrics = ask(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;

        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(!serving.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_cut_off() {
        let (address, _serving) = serve();
        let mut socket = TcpStream::connect(address).await.unwrap();

        let cut = timeout(EXCHANGE_MAX * 3, socket.read_to_end(&mut Vec::new())).await;

        assert!(cut.is_ok(), "still open after 15 s");
    }
}
