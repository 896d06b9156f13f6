//! The rules of `select`, ready for use: which one matches an exchange first. They decide nothing else.

use std::collections::BTreeSet;

use globset::{Glob, GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};

use super::PolicyError;
use crate::config::{Condition, SelectRule, Share, Sizes, Stateful};
use crate::content;
use crate::exchange::{Exchange, Headers};

/// All rules. Paths of all of them are matched at once, and the rest only where it is asked for.
#[derive(Debug)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    /// The paths of all rules.
    paths: GlobSet,
    /// The position of the rule that each glob of `paths` belongs to.
    owners: Vec<usize>,
}

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) share: Share,
    pub(super) mode: Option<Stateful>,
    pub(super) methods: BTreeSet<String>,
    pub(super) has_path: bool,
    headers: Vec<(String, GlobMatcher)>,
    status: Vec<(u16, u16)>,
    request_body: Sizes,
    response_body: Sizes,
    request_type: Vec<GlobMatcher>,
    response_type: Vec<GlobMatcher>,
}

impl Rules {
    /// # Errors
    /// When something is not a glob.
    pub(super) fn new(rules: &[SelectRule]) -> Result<Rules, PolicyError> {
        let mut paths = GlobSetBuilder::new();
        let mut owners = Vec::new();
        for (position, rule) in rules.iter().enumerate() {
            for glob in rule.condition.path.iter().map(|path| globs_of(path)) {
                for glob in glob? {
                    paths.add(glob);
                    owners.push(position);
                }
            }
        }
        let rules = rules.iter().map(Rule::new).collect::<Result<_, _>>()?;
        Ok(Rules { rules, paths: build(&paths)?, owners })
    }

    /// The first rule that matches an exchange with this normalised path.
    pub(super) fn first(&self, exchange: &Exchange, path: &str) -> Option<&Rule> {
        if self.rules.is_empty() {
            return None;
        }
        let matched = if self.owners.is_empty() { Vec::new() } else { self.paths.matches(path) };
        let owners: Vec<usize> = matched.iter().filter_map(|&glob| self.owners.get(glob).copied()).collect();
        let mut rules = self.rules.iter().enumerate();
        let found =
            rules.find(|(at, rule)| (!rule.has_path || owners.contains(at)) && rule.matches(exchange));
        found.map(|(_, rule)| rule)
    }
}

impl Rule {
    fn new(rule: &SelectRule) -> Result<Rule, PolicyError> {
        let Condition { methods, path, headers, status, request_body, response_body, .. } = &rule.condition;
        let globs = |globs: &[String]| globs.iter().map(|glob| value_glob(glob)).collect::<Result<_, _>>();
        let headers = headers.iter().map(|(name, glob)| Ok((name.clone(), value_glob(glob)?)));
        Ok(Rule {
            share: rule.share,
            mode: rule.mode,
            methods: methods.clone(),
            has_path: path.is_some(),
            headers: headers.collect::<Result<_, PolicyError>>()?,
            status: status.clone(),
            request_body: *request_body,
            response_body: *response_body,
            request_type: globs(&rule.condition.request_type)?,
            response_type: globs(&rule.condition.response_type)?,
        })
    }

    /// Whether everything but the path matches.
    fn matches(&self, exchange: &Exchange) -> bool {
        let (request, response) = (&exchange.request, &exchange.response);
        let header = |(name, glob): &(String, GlobMatcher)| {
            request.headers.all(name).any(|value| glob.is_match(&*String::from_utf8_lossy(value)))
        };
        (self.methods.is_empty() || self.methods.contains(request.method.as_str()))
            && (self.status.is_empty()
                || self.status.iter().any(|&(first, last)| (first..=last).contains(&response.status)))
            && self.request_body.contains(request.body.len())
            && self.response_body.contains(response.body.len())
            && self.headers.iter().all(header)
            && is_of(&self.request_type, &request.headers)
            && is_of(&self.response_type, &response.headers)
    }
}

/// Whether a message is of one of these media types; one that says none is of none.
fn is_of(types: &[GlobMatcher], headers: &Headers) -> bool {
    types.is_empty()
        || content::media_type(headers)
            .is_some_and(|media_type| types.iter().any(|glob| glob.is_match(&media_type)))
}

/// The globs that a configured path stands for.
pub(super) fn globs_of(path: &str) -> Result<Vec<Glob>, PolicyError> {
    let glob = |pattern: &str| {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        glob.map_err(|source| PolicyError::Glob { path: path.to_owned(), source })
    };
    [Some(path), path.strip_suffix("/**")].into_iter().flatten().map(glob).collect()
}

/// A glob of which `*` matches anything.
fn value_glob(pattern: &str) -> Result<GlobMatcher, PolicyError> {
    let glob = GlobBuilder::new(pattern).literal_separator(false).build();
    glob.map(|glob| glob.compile_matcher())
        .map_err(|source| PolicyError::ValueGlob { glob: pattern.to_owned(), source })
}

pub(super) fn build(globs: &GlobSetBuilder) -> Result<GlobSet, PolicyError> {
    globs.build().map_err(|source| PolicyError::Glob {
        path: source.glob().unwrap_or("(all paths together)").to_owned(),
        source,
    })
}
