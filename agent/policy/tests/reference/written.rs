//! A rule as its author writes it.

use std::net::IpAddr;

use super::model::{Exception, Rule, When};

pub fn yaml(rules: &[Rule]) -> String {
    let mut out = String::from("apiVersion: plumbline/v1\nkind: Policy\nmetadata: {name: p}\nspec:\n  rules:\n");
    for (index, rule) in rules.iter().enumerate() {
        out += &format!("    - {{name: r{index}, severity: low, effect: audit, message: '{{pid}}', match: ");
        out += &match &rule.when {
            When::File { watch, accesses, path, while_served } => {
                let words: Vec<String> = accesses.iter().map(|access| format!("{access:?}").to_lowercase()).collect();
                let path = path.iter().map(|pattern| format!(", path: {pattern:?}")).collect::<String>();
                format!("{{file: {{watch: {watch:?}, access: {words:?}, whileServed: {while_served}{path}}}}}")
            }
            When::Connect { from, to, not_to, not_to_names, port, udp, after_reading } => {
                let networks = not_to.iter().map(|(address, prefix)| format!("\"{address}/{prefix}\""));
                let names = not_to_names.iter().map(|pattern| format!("{{matchPattern: {pattern:?}}}"));
                let not_to: Vec<String> = networks.chain(names).collect();
                let protocols = if *udp { "[tcp, udp]" } else { "tcp" };
                let after =
                    after_reading.iter().map(|watch| format!(", afterReading: [{watch:?}]")).collect::<String>();
                let of = |(address, prefix): &(IpAddr, u8)| format!("\"{address}/{prefix}\"");
                let from = from.iter().map(|network| format!(", from: {}", of(network))).collect::<String>();
                let to = to.iter().map(|network| format!(", to: {}", of(network))).collect::<String>();
                let port = port.iter().map(|port| format!(", port: {port}")).collect::<String>();
                let not_to = not_to.join(", ");
                format!("{{connect: {{notTo: [{not_to}], protocol: {protocols}{after}{from}{to}{port}}}}}")
            }
        };
        let subjects: Vec<String> = rule.subjects.iter().map(exception_yaml).collect();
        if !subjects.is_empty() {
            out += &format!(", subject: [{}]", subjects.join(", "));
        }
        let except: Vec<String> = rule.except.iter().map(exception_yaml).filter(|one| one != "{}").collect();
        if !except.is_empty() {
            out += &format!(", except: [{}]", except.join(", "));
        }
        out += "}\n";
    }
    out
}

/// The same rules as ones that deny, in a policy about these subjects.
pub fn denying_yaml(subjects: &[Exception], rules: &[Rule]) -> String {
    let subjects: Vec<String> = subjects.iter().map(exception_yaml).collect();
    let spec = match subjects.as_slice() {
        [] => "spec:\n  mode: enforce\n".to_owned(),
        some => format!("spec:\n  mode: enforce\n  subject: [{}]\n", some.join(", ")),
    };
    yaml(rules).replace("spec:\n", &spec).replace("effect: audit", "effect: deny")
}

pub fn exception_yaml(exception: &Exception) -> String {
    let mut fields = Vec::new();
    if !exception.exe.is_empty() {
        fields.push(format!("exe: {:?}", exception.exe));
    }
    fields.extend(exception.comm.iter().map(|comm| format!("comm: {comm:?}")));
    fields.extend(exception.uid.iter().map(|uid| format!("uid: {uid}")));
    fields.extend(exception.cgroup.iter().map(|glob| format!("cgroup: {glob:?}")));
    fields.extend(exception.unit.iter().map(|glob| format!("unit: {glob:?}")));
    fields.extend(exception.descendants_of.iter().map(|glob| format!("descendantsOf: {{exe: {glob:?}}}")));
    fields.extend(exception.container.iter().map(|prefix| format!("container: {prefix:?}")));
    fields.extend(exception.user.iter().map(|name| format!("user: {name:?}")));
    fields.extend(exception.namespace.iter().map(|glob| format!("namespace: {glob:?}")));
    fields.extend(exception.label.iter().map(|(name, value)| format!("podLabels: {{{name}: {value}}}")));
    fields.extend(exception.image.iter().map(|glob| format!("image: {glob:?}")));
    fields.extend(exception.exe_sha256.iter().map(|digest| format!("exeSha256: {digest:?}")));
    fields.extend(exception.path.iter().map(|glob| format!("path: {glob:?}")));
    let networks = exception.to.iter().map(|(address, prefix)| format!("\"{address}/{prefix}\""));
    let names = exception.to_name.iter().map(|pattern| format!("{{matchPattern: {pattern:?}}}"));
    let to: Vec<String> = networks.chain(names).collect();
    fields.extend((!to.is_empty()).then(|| format!("to: [{}]", to.join(", "))));
    fields.extend(exception.port.iter().map(|port| format!("port: {port}")));
    format!("{{{}}}", fields.join(", "))
}
