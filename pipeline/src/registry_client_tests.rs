//! A registry that answers wrongly, late or not at all is not one that does not know.

use super::*;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use tokio::net::TcpListener;

async fn serving(answer: (StatusCode, &'static str)) -> RegistryClient {
    let app = Router::new().fallback(move || async move { answer.into_response() });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    RegistryClient::new(&url, Duration::from_secs(5)).expect("a client")
}

#[tokio::test]
async fn only_the_registrys_own_word_means_unknown() {
    let unknown = r#"{"error_code":40403,"message":"schema not found"}"#;
    let client = serving((StatusCode::NOT_FOUND, unknown)).await;
    assert_eq!(client.lookup(1).await.expect("an answer"), None);
    for answer in [
        (StatusCode::NOT_FOUND, "<html>no such page</html>"),
        (StatusCode::NOT_FOUND, r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#),
        (StatusCode::INTERNAL_SERVER_ERROR, r#"{"error_code":50001,"message":"store"}"#),
        (StatusCode::SERVICE_UNAVAILABLE, ""),
        (StatusCode::UNAUTHORIZED, r#"{"error_code":40101,"message":"who are you"}"#),
        (StatusCode::OK, "garbage"),
        (StatusCode::OK, r#"{"other":"json"}"#),
    ] {
        let client = serving(answer).await;
        assert!(client.lookup(1).await.is_err(), "{answer:?}");
        assert!(
            client.register("s", "\"int\"").await.is_err_and(|e| e.is_retryable()),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_refusal_is_told_from_a_failure() {
    let answer = r#"{"error_code":42201,"message":"invalid"}"#;
    let client = serving((StatusCode::UNPROCESSABLE_ENTITY, answer)).await;
    let refused = client.register("s", "x").await.expect_err("refused");
    assert!(!refused.is_retryable() && refused.to_string().contains("42201"), "{refused}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up() {
    // Accepts by the listener's queue and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://user:secret@{}", listener.local_addr().expect("an address"));
    let client = RegistryClient::new(&url, Duration::from_millis(100)).expect("a client");
    let error = client.lookup(1).await.expect_err("no answer");
    assert!(!error.to_string().contains("secret"), "{error}");
    drop(listener);
    assert!(client.lookup(1).await.is_err(), "nothing listens");
}

#[tokio::test]
async fn a_registry_that_wants_a_login_is_given_the_one_in_its_url() {
    let app = Router::new().fallback(|headers: axum::http::HeaderMap| async move {
        let login = headers.get("authorization").and_then(|value| value.to_str().ok());
        match login {
            // user:secret
            Some("Basic dXNlcjpzZWNyZXQ=") => (StatusCode::OK, r#"{"schema":"\"int\""}"#),
            _ => (StatusCode::UNAUTHORIZED, r#"{"error_code":40101,"message":"who are you"}"#),
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    let asked = async |login: &str| {
        let url = format!("http://{login}{address}");
        RegistryClient::new(&url, Duration::from_secs(5)).expect("a client").lookup(1).await
    };
    let schema = asked("user:secret@").await.expect("an answer");
    assert_eq!(schema.as_deref(), Some("\"int\""));
    let refused = asked("user:hunter2@").await.expect_err("refused");
    assert!(!refused.to_string().contains("hunter2"), "{refused}");
}
