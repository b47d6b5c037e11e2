//! Which declarations give a model, and what is said of the others.

use crate::fake::{KEY, decl, expand};
use domain::ModelDecl;
use domain::agent::{ModelProvider, Wire};
use stdx::{Clock, Random};

#[test]
fn a_declaration_is_opened_or_told_what_it_lacks() {
    let plain = || decl(Wire::Responses, true, "http://127.0.0.1:1/v1");
    let with = |change: &dyn Fn(&mut ModelDecl)| {
        let mut decl = plain();
        change(&mut decl);
        decl
    };
    for (decl, expected) in [
        (plain(), "ok"),
        (with(&|decl| decl.key = None), "ok"),
        (with(&|decl| decl.key = Some("${env.OTHER}".into())), "model_not_configured"),
        (with(&|decl| decl.url = Some("${env.OTHER}".into())), "model_not_configured"),
        (with(&|decl| decl.key = Some("${env.OTHER".into())), "model_declaration"),
        (with(&|decl| decl.key = Some("${env.KEY}\n".into())), "model_declaration"),
        (with(&|decl| decl.url = None), "model_declaration"),
        (with(&|decl| decl.url = Some("no url".into())), "model_declaration"),
        (with(&|decl| decl.url = Some("ftp://host/v1".into())), "model_declaration"),
        (with(&|decl| drop(decl.headers.insert("bad name".into(), "x".into()))), "model_declaration"),
        (with(&|decl| (decl.provider, decl.url) = (ModelProvider::Openai, None)), "ok"),
        (
            with(&|decl| (decl.provider, decl.key) = (ModelProvider::Openai, Some("${env.EMPTY}".into()))),
            "model_not_configured",
        ),
        (with(&|decl| decl.provider = ModelProvider::Script), "model_declaration"),
        (
            with(&|decl| (decl.provider, decl.transcript) = (ModelProvider::Script, Some("title: x".into()))),
            "script_malformed",
        ),
        (
            with(&|decl| {
                (decl.provider, decl.transcript) =
                    (ModelProvider::Script, Some("title: x\nsteps: [{reply: [{text: y}]}]".into()))
            }),
            "ok",
        ),
    ] {
        let net = net::Client::new(net::Settings::default()).unwrap();
        let opened = model::open(&decl, &expand, net, Random::seeded(1), Clock::manual(0));
        let got = opened.as_ref().map_or_else(model::Error::code, |_| "ok");
        assert_eq!(got, expected, "{decl:?}");
        if let Err(error) = opened {
            assert!(!error.to_string().contains(KEY), "{error}");
            assert_eq!(error.failure().message, error.to_string());
        }
    }
}
