//! The page's files.

use crate::client::Server;

#[test]
fn the_page_takes_nothing_from_elsewhere() {
    let server = Server::new();
    let mut all = String::new();
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/page.css", "text/css"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let reply = server.get(path);
        assert_eq!(reply.status, 200);
        assert!(reply.header("content-type").unwrap().starts_with(kind));
        let policy = reply.header("content-security-policy").unwrap().to_string();
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe") && !policy.contains("http"),
            "{policy}"
        );
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        all += &reply.text().replace("http://www.w3.org/2000/svg", "");
    }
    assert!(!all.contains("http://") && !all.contains("https://"), "nothing is loaded from elsewhere");
    assert!(
        !all.contains("style=\"") && !all.contains("onclick") && !all.contains("<style"),
        "nothing that the policy forbids"
    );
}
