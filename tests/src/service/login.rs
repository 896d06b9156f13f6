//! What the demo service knows of its users: who is logged in, by values that each instance issues by itself.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use super::{Shop, random_id};

/// Everything that was issued.
#[derive(Debug, Default)]
pub(super) struct Issued(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    /// What proves, by session, that a request comes from our own pages.
    csrf: HashMap<String, String>,
    carts: HashSet<String>,
    /// Requests under way by user.
    under_way: HashMap<String, usize>,
}

impl Issued {
    fn with<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many requests of a user are under way, with the one that begins.
    pub(super) fn begins(&self, user: &str) -> usize {
        self.with(|book| {
            let count = book.under_way.entry(user.to_owned()).or_default();
            *count += 1;
            *count
        })
    }

    pub(super) fn ends(&self, user: &str) {
        self.with(|book| {
            if let Some(count) = book.under_way.get_mut(user) {
                *count -= 1;
            }
        });
    }
}

pub(super) fn routes() -> Router<Arc<Shop>> {
    Router::new()
        .route("/login", post(login))
        .route("/account", get(account))
        .route("/carts", post(create))
        .route("/carts/{id}", get(cart))
}

/// Issues a session as a cookie, and what proves that requests come from our own pages in the document.
async fn login(State(shop): State<Arc<Shop>>) -> impl IntoResponse {
    let (sid, csrf) = (random_id(), random_id());
    shop.issued.with(|book| book.csrf.insert(sid.clone(), csrf.clone()));
    let cookie = format!("sid={sid}; Path=/; HttpOnly");
    ([(header::SET_COOKIE, cookie)], Json(json!({ "welcome": true, "csrf": csrf })))
}

fn session(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
    cookies.split("; ").find_map(|pair| pair.strip_prefix("sid="))
}

async fn account(State(shop): State<Arc<Shop>>, headers: HeaderMap) -> Response {
    let known = session(&headers).is_some_and(|sid| shop.issued.with(|book| book.csrf.contains_key(sid)));
    match known {
        true => Json(json!({ "name": "Ada" })).into_response(),
        false => StatusCode::UNAUTHORIZED.into_response(),
    }
}

async fn create(State(shop): State<Arc<Shop>>, headers: HeaderMap) -> Response {
    let said = headers.get("x-csrf").and_then(|value| value.to_str().ok());
    let id = random_id();
    let accepted = shop.issued.with(|book| {
        let accepted =
            session(&headers).and_then(|sid| book.csrf.get(sid)).is_some_and(|csrf| said == Some(csrf));
        accepted && book.carts.insert(id.clone())
    });
    match accepted {
        true => (StatusCode::CREATED, Json(json!({ "cart": { "id": id } }))).into_response(),
        false => StatusCode::FORBIDDEN.into_response(),
    }
}

async fn cart(State(shop): State<Arc<Shop>>, Path(id): Path<String>) -> Response {
    match shop.issued.with(|book| book.carts.contains(&id)) {
        true => Json(json!({ "items": [] })).into_response(),
        false => StatusCode::NOT_FOUND.into_response(),
    }
}
