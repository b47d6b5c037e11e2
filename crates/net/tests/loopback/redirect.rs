//! Redirects: what is followed, what stays behind, what is refused.

use crate::server::{self, Names, get, lenient, outcome};
use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::routing::{any, get as on_get};
use net::{Bytes, Client, HeaderValue, Origin, Request, Settings, Url};

/// Says what it was asked with.
async fn seen(method: Method, headers: HeaderMap, body: String) -> String {
    let has = |name: &'static str| if headers.contains_key(name) { name } else { "-" };
    format!("{method} {} {} {} {body}", has("authorization"), has("x-key"), has("accept")).trim_end().to_owned()
}

async fn servers() -> (String, String) {
    let (other, _) = server::serve(Router::new().route("/seen", any(seen))).await;
    let other = format!("http://other.test:{}", other.port());
    let location = other.clone();
    let app = Router::new()
        .route("/seen", any(seen))
        .route(
            "/same/{status}",
            any(|Path(status): Path<u16>| async move {
                (StatusCode::from_u16(status).unwrap(), [(header::LOCATION, "/seen")])
            }),
        )
        .route(
            "/other/{status}",
            any(move |Path(status): Path<u16>| {
                let location = format!("{location}/seen");
                async move { (StatusCode::from_u16(status).unwrap(), [(header::LOCATION, location)]) }
            }),
        )
        .route("/loop", on_get(|| async { (StatusCode::FOUND, [(header::LOCATION, "/loop")]) }))
        .route("/file", on_get(|| async { (StatusCode::FOUND, [(header::LOCATION, "file:///etc/passwd")]) }))
        .route("/garbled", on_get(|| async { (StatusCode::FOUND, [(header::LOCATION, "http://[")]) }));
    let (first, _) = server::serve(app).await;
    (format!("http://first.test:{}", first.port()), other)
}

fn names() -> std::sync::Arc<Names> {
    Names::of(&[("first.test", &["127.0.0.1"]), ("other.test", &["127.0.0.1"])])
}

fn request(method: &str, url: &str, body: &'static str) -> Request {
    let mut request = Request::new(method.parse().unwrap(), Url::parse(url).unwrap(), Origin::Operator);
    for (name, value) in [("authorization", "Bearer s"), ("x-key", "s"), ("accept", "text/plain")] {
        request.headers.insert(name, HeaderValue::from_static(value));
    }
    request.body = Bytes::from_static(body.as_bytes());
    request.redirects_max = 3;
    request
}

#[tokio::test]
async fn secrets_stay_with_the_origin_they_were_meant_for() {
    let (first, _) = servers().await;
    let client = lenient(names());
    for (method, path, body, expected) in [
        ("GET", "same/302", "", "GET authorization x-key accept"),
        ("POST", "same/302", "b", "GET authorization x-key accept"),
        ("POST", "same/303", "b", "GET authorization x-key accept"),
        ("POST", "same/307", "b", "POST authorization x-key accept b"),
        ("PUT", "same/301", "b", "PUT authorization x-key accept b"),
        ("GET", "other/302", "", "GET - - accept"),
        ("POST", "other/303", "b", "GET - - accept"),
        ("POST", "other/307", "b", "net_redirect_refused"),
        ("PUT", "other/308", "b", "net_redirect_refused"),
        ("GET", "loop", "", "net_redirect_refused"),
        ("GET", "file", "", "net_bad_url"),
        ("GET", "garbled", "", "net_redirect_refused"),
    ] {
        let request = request(method, &format!("{first}/{path}"), body);
        assert_eq!(outcome(&client, request).await, expected, "{method} {path}");
    }
}

#[tokio::test]
async fn a_redirect_leads_no_further_than_an_untrusted_host_may() {
    let (first, _) = servers().await;
    let client = Client::with_lookup(Settings::default(), names()).unwrap();
    let follow = |path: &str| Request { redirects_max: 3, ..get(&format!("{first}/{path}"), Origin::Operator) };
    assert_eq!(outcome(&client, follow("same/302")).await, "GET - - accept");
    assert_eq!(outcome(&client, follow("other/302")).await, "net_address_refused");
}

#[tokio::test]
async fn without_leave_a_redirect_is_an_answer_like_any_other() {
    let (first, other) = servers().await;
    let client = Client::with_lookup(Settings::default(), names()).unwrap();
    let response = client.send(get(&format!("{first}/other/302"), Origin::Operator)).await.unwrap();
    assert_eq!((response.status(), response.header("location")), (302, Some(&*format!("{other}/seen"))));
}
