//! Where a pod's annotations say that its metrics are: those that Prometheus' users have agreed on (`prometheus.io/scrape`, `port`,
//! `path`, `scheme`), and ours, `plumbline.io/scrape`, which goes before them.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value};

use crate::identity::pod::Page;

/// `None`: they point nowhere, or where nothing can be asked: another scheme than `http`, as nothing is known that could prove the other
/// side.
pub(super) fn page(uid: &str, pod: &str, pod_ip: &str, annotations: &Map<String, Value>) -> Option<Page> {
    let of = |name: &str| annotations.get(name).and_then(Value::as_str);
    let wanted = of("plumbline.io/scrape").or_else(|| of("prometheus.io/scrape"));
    let is_http = of("prometheus.io/scheme").is_none_or(|scheme| scheme.eq_ignore_ascii_case("http"));
    if wanted != Some("true") || !is_http {
        return None;
    }
    let (ip, port) =
        (pod_ip.parse::<IpAddr>().ok()?, of("prometheus.io/port")?.parse().ok().filter(|port| *port != 0)?);
    let path = of("prometheus.io/path").unwrap_or("/metrics");
    let is_path = path.starts_with('/') && path.len() <= 256 && path.bytes().all(|byte| byte.is_ascii_graphic());
    let url = format!("http://{}{path}", SocketAddr::new(ip, port));
    is_path.then(|| Page { pod_uid: uid.to_owned(), pod: pod.to_owned(), port, url })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(annotations: Value, expect: Option<&str>) {
        let Value::Object(annotations) = annotations else { panic!("an object") };
        let found = page("u", "vllm-0", "fd00::7", &annotations).map(|page| page.url);
        assert_eq!(found.as_deref(), expect, "{annotations:?}");
    }

    #[test]
    fn a_page_is_where_the_annotations_say_and_nowhere_else() {
        check(
            json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8000"}),
            Some("http://[fd00::7]:8000/metrics"),
        );
        check(
            json!({"plumbline.io/scrape": "true", "prometheus.io/port": "80", "prometheus.io/path": "/p?model=x"}),
            Some("http://[fd00::7]:80/p?model=x"),
        );
        for nowhere in [
            json!({}),
            json!({"prometheus.io/scrape": "true"}),
            json!({"prometheus.io/scrape": "false", "prometheus.io/port": "8000"}),
            json!({"prometheus.io/scrape": true, "prometheus.io/port": "8000"}),
            json!({"prometheus.io/scrape": "true", "plumbline.io/scrape": "false", "prometheus.io/port": "8000"}),
            json!({"prometheus.io/scrape": "true", "prometheus.io/port": "0"}),
            json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8000", "prometheus.io/scheme": "https"}),
            json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8000", "prometheus.io/path": "@evil/"}),
            json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8000", "prometheus.io/path": "/a b"}),
        ] {
            check(nowhere, None);
        }
    }
}
