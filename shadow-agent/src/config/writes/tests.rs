use super::super::{Condition, RecordOnly, Share, Target};
use super::*;

fn target(name: &str, isolated: bool, dry_run: bool) -> Target {
    Target { name: name.to_owned(), isolated, dry_run, ..Target::default() }
}

fn config(methods: &[&str], stateful: Option<Stateful>, rules: Vec<SelectRule>) -> Config {
    let mut config = Config::default();
    config.replay.targets = vec![target("a", true, true), target("b", true, false)];
    config.replay.baseline = Some(target("base", false, false));
    let methods = methods.iter().map(|method| (*method).to_owned()).collect();
    let record = Some(RecordOnly { out: "/k/kept.gor".into(), rotate_size: 1, keep: 1 });
    config.select = Select { methods, stateful, rules, record, ..Select::default() };
    config
}

#[test]
fn what_is_written_where_is_said_in_plain_words() {
    let rule = |methods: &[&str], path: Option<&str>, mode: Option<Stateful>| {
        let methods = methods.iter().map(|method| (*method).to_owned()).collect();
        let condition = Condition { methods, path: path.map(str::to_owned), ..Condition::default() };
        SelectRule { condition, share: Share::ALL, mode }
    };
    let nothing = "no request with an unsafe method leaves, so nothing is written anywhere";
    let mut conditional = rule(&["PUT"], Some("/c/**"), Some(Stateful::DryRun));
    conditional.condition.status = vec![(200, 299)];
    let cases = [
        (config(&["GET", "TRACE"], None, Vec::new()), nothing.to_owned()),
        (config(&["POST"], Some(Stateful::Skip), Vec::new()), nothing.to_owned()),
        (config(&["POST"], None, vec![SelectRule::by_path("/a", Share(0.0))]),
            "POST on every path is sent, and writes at a (isolated), b (isolated), base, by select.methods where no rule \
             decides".to_owned()),
        (
            config(&["GET"], Some(Stateful::RecordOnly), vec![conditional, rule(&[], Some("/p"), Some(Stateful::Skip))]),
            "PUT on /c/** under further conditions is sent as a dry run to a (not to b, base, which does not understand \
             it), by select.rules[0]\n\
             unsafe methods on every path is recorded, masked, in files named after /k/kept.gor, and not sent, by \
             select.stateful where no rule decides".to_owned(),
        ),
        (
            config(&["GET"], None, vec![rule(&["POST", "GET"], None, Some(Stateful::Send)), rule(&[], Some("/x"), None)]),
            "POST on every path is sent, and writes at a (isolated), b (isolated), base, by select.rules[0]".to_owned(),
        ),
    ];
    for (config, expected) in cases {
        assert_eq!(in_words(&config).join("\n"), expected);
    }
}
