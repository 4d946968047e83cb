//! The path of a URL: which database of a server.

/// `scheme://authority/path?query` with another path.
pub fn with_path(url: &str, path: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, None), |(b, q)| (b, Some(q)));
    let authority = base.find("://").map_or(0, |at| at + 3);
    let end = base[authority..].find('/').map_or(base.len(), |at| authority + at);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}/{path}{query}", &base[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_of_a_url_changes() {
        for (url, expected) in [
            ("postgres://a:b@h:1/x", "postgres://a:b@h:1/demo"),
            ("postgres://a:b@h:1", "postgres://a:b@h:1/demo"),
            ("postgres://a:b@h:1/x?sslmode=require", "postgres://a:b@h:1/demo?sslmode=require"),
        ] {
            assert_eq!(with_path(url, "demo"), expected);
        }
    }
}
