//! All filters of a node, compiled: immutable, versioned, swapped whole.
//!
//! Promises: every enabled filter is either in the set or in the list of errors; what failed is still counted as asked
//! for, so that a broken filter never turns "these" into "everything".

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ahash::RandomState;

use crate::field::Field;
use crate::packet::{Ip, LinkType};
use crate::pattern::{Pattern, PatternId, PatternSet, PatternSetBuilder, SetError};

use super::identity::Identity;
use super::ip::IpSet;
use super::phone::{PhonePlan, PhoneSet, PhoneSetBuilder};
use super::{
    BpfCompiler, BpfGate, Dialect, Filter, FilterError, FilterIndex, FilterKind, Hits, MAX_BPF_FILTERS, MAX_FILTERS, MediaPolicy,
    Mode, USUAL_LINKS, codec, device, identity, ip,
};

/// What a node knows beyond the filters.
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    /// How numbers are dialled here.
    pub phone: PhonePlan,
    /// What the node understands.
    pub mode: Mode,
    /// The version of the filters given.
    pub version: u64,
}

/// An applied filter.
#[derive(Debug)]
struct Applied {
    filter: Filter,
    rule: &'static str,
}

/// Compiled filters.
#[derive(Debug, Default)]
pub struct FilterSet {
    version: u64,
    applied: Vec<Applied>,
    ids: Vec<Arc<str>>,
    known: HashSet<Arc<str>, RandomState>,
    asked: Asked,
    user: PatternSet,
    uri: PatternSet,
    phone: PhoneSet,
    call_id: PatternSet,
    ip: IpSet,
    codec: PatternSet,
    imsi: PatternSet,
    imei: PatternSet,
    bpf: Vec<(FilterIndex, String)>,
    gates: Vec<(LinkType, BpfGate)>,
    plan: String,
}

/// Which sorts of enabled filters were asked for, whether or not they could be applied.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    bpf: bool,
    other: bool,
}

impl FilterSet {
    /// No filters, version 0.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Compiles `filters`; what cannot be applied on this node comes back beside the set.
    ///
    /// Disabled filters are left out. The same filter given twice counts once; another filter under an id already
    /// taken is an error, and the first stands.
    pub fn compile(filters: &[Filter], options: &CompileOptions) -> (Self, Vec<FilterError>) {
        let mut compiler = Compiler::new(options);
        let mut seen: HashMap<&str, &Filter, RandomState> = HashMap::default();
        for filter in filters {
            match seen.get(filter.id.as_str()) {
                Some(first) if *first == filter => {}
                Some(_) => compiler.refuse(&filter.id, "another filter has this id".into()),
                None => {
                    seen.insert(&filter.id, filter);
                    if filter.enabled {
                        compiler.add(filter);
                    }
                }
            }
        }
        compiler.finish()
    }

    /// The version of the filters this was compiled from.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether no enabled filter was given at all: the no-filter policy decides then.
    pub fn is_empty(&self) -> bool {
        !self.asked.bpf && !self.asked.other
    }

    /// Whether only `bpf` filters were given: everything inside them is wanted.
    pub fn only_bpf(&self) -> bool {
        self.asked.bpf && !self.asked.other
    }

    /// Whether `bpf` filters restrict the packets, even if none of them could be applied.
    pub fn restricts_packets(&self) -> bool {
        self.asked.bpf
    }

    /// How many filters are applied.
    pub fn len(&self) -> usize {
        self.applied.len()
    }

    /// Whether a filter with this id is applied.
    pub fn has_id(&self, id: &str) -> bool {
        self.known.contains(id)
    }

    /// The id of an applied filter.
    pub fn id(&self, index: FilterIndex) -> Option<&Arc<str>> {
        self.ids.get(usize::try_from(index.0).ok()?)
    }

    /// An applied filter.
    pub fn filter(&self, index: FilterIndex) -> Option<&Filter> {
        self.at(index).map(|applied| &applied.filter)
    }

    /// How an applied filter is compared, in words for the record.
    pub fn rule(&self, index: FilterIndex) -> Option<String> {
        let applied = self.at(index)?;
        Some(if applied.filter.kind == FilterKind::PhoneNumber {
            format!("{} ({})", applied.rule, self.plan)
        } else {
            applied.rule.to_owned()
        })
    }

    fn at(&self, index: FilterIndex) -> Option<&Applied> {
        self.applied.get(usize::try_from(index.0).ok()?)
    }

    /// What is kept of the media of a call chosen by these filters: the most that one of them asks for.
    pub fn media(&self, hits: &Hits) -> MediaPolicy {
        if hits.is_empty() || hits.is_cut() {
            return MediaPolicy::Full;
        }
        hits.as_slice().iter().filter_map(|i| self.filter(*i)).map(|f| f.media).max().unwrap_or_default()
    }

    /// The `bpf` filters' expressions.
    pub fn bpf(&self) -> &[(FilterIndex, String)] {
        &self.bpf
    }

    /// Compiles the `bpf` filters for the usual link types, so that who meets packets need not; those without a meaning on any of them come
    /// back.
    pub fn compile_bpf(&mut self, compiler: &dyn BpfCompiler) -> Vec<FilterError> {
        self.gates.clear();
        let mut failed: Vec<Vec<FilterError>> = Vec::new();
        for link in USUAL_LINKS.into_iter().filter(|_| !self.bpf.is_empty()) {
            let (gate, errors) = BpfGate::compile(self, compiler, link);
            self.gates.push((link, gate));
            failed.push(errors);
        }
        let Some((first, others)) = failed.split_first() else { return Vec::new() };
        let everywhere = |e: &&FilterError| others.iter().all(|errors| errors.iter().any(|other| other.id == e.id));
        first.iter().filter(everywhere).cloned().collect()
    }

    /// The `bpf` filters, compiled for a usual link type.
    pub fn gate(&self, link: LinkType) -> Option<&BpfGate> {
        self.gates.iter().find(|(l, _)| *l == link).map(|(_, gate)| gate)
    }

    /// Whether [`FilterSet::match_identity`] can find anything.
    #[inline]
    pub fn has_identity(&self) -> bool {
        !self.user.is_empty() || !self.uri.is_empty() || !self.phone.is_empty()
    }

    /// Whether [`FilterSet::match_call_id`] can find anything.
    #[inline]
    pub fn has_call_id(&self) -> bool {
        !self.call_id.is_empty()
    }

    /// Whether [`FilterSet::match_ip`] can find anything.
    #[inline]
    pub fn has_ip(&self) -> bool {
        !self.ip.is_empty()
    }

    /// Whether [`FilterSet::match_codec`] can find anything.
    #[inline]
    pub fn has_codec(&self) -> bool {
        !self.codec.is_empty()
    }

    /// Whether [`FilterSet::match_imsi`] can find anything.
    #[inline]
    pub fn has_imsi(&self) -> bool {
        !self.imsi.is_empty()
    }

    /// Whether [`FilterSet::match_imei`] can find anything.
    #[inline]
    pub fn has_imei(&self) -> bool {
        !self.imei.is_empty()
    }

    /// Adds the filters that mean this identity of a SIP message, as the message spells it.
    ///
    /// `user` and `host` are the parts of a SIP URI; for a `tel:` URI both are empty and `number` is what follows the
    /// scheme. Every field counts alike, so that an anonymous `From` does not hide a target.
    pub fn match_identity(&self, field: Field, user: &[u8], host: &[u8], number: Option<&str>, hits: &mut Hits) {
        if !self.has_identity() {
            return;
        }
        let identity = Identity::new(field, user, host, number);
        hits.search_folded(&self.user, identity.user());
        if !self.user.is_empty()
            && let Some(user) = identity.user_without_parameters()
        {
            hits.search_folded(&self.user, user);
        }
        hits.search_folded(&self.uri, identity.uri());
        if !self.phone.is_empty() {
            self.phone.find(number.map_or(identity.user(), str::as_bytes), hits);
        }
    }

    /// Adds the filters that mean this `Call-ID`.
    pub fn match_call_id(&self, call_id: &[u8], hits: &mut Hits) {
        hits.search(&self.call_id, call_id);
    }

    /// Adds the filters whose network holds this address.
    pub fn match_ip(&self, ip: Ip, hits: &mut Hits) {
        self.ip.find(ip, hits);
    }

    /// Adds the filters that mean this encoding name.
    pub fn match_codec(&self, name: &str, hits: &mut Hits) {
        hits.search(&self.codec, name.as_bytes());
    }

    /// Adds the filters that mean the IMSI in this private identity (or its user part).
    pub fn match_imsi(&self, private_identity: &[u8], hits: &mut Hits) {
        if self.has_imsi()
            && let Some(digits) = device::observed_imsi(private_identity)
        {
            hits.search(&self.imsi, &digits);
        }
    }

    /// Adds the filters that mean the IMEI in this `+sip.instance` value (or the bare number).
    pub fn match_imei(&self, instance: &[u8], hits: &mut Hits) {
        if self.has_imei()
            && let Some(digits) = device::observed_imei(instance)
        {
            hits.search(&self.imei, &digits);
        }
    }
}

/// A set in the making.
struct Compiler<'a> {
    options: &'a CompileOptions,
    set: FilterSet,
    user: PatternSetBuilder,
    uri: PatternSetBuilder,
    phone: PhoneSetBuilder,
    call_id: PatternSetBuilder,
    codec: PatternSetBuilder,
    imsi: PatternSetBuilder,
    imei: PatternSetBuilder,
    errors: Vec<FilterError>,
}

impl<'a> Compiler<'a> {
    fn new(options: &'a CompileOptions) -> Self {
        let set = FilterSet { version: options.version, plan: options.phone.describe(), ..FilterSet::default() };
        Self {
            options,
            set,
            user: PatternSetBuilder::ignoring_case(),
            uri: PatternSetBuilder::ignoring_case(),
            phone: PhoneSetBuilder::new(options.phone.clone()),
            call_id: PatternSetBuilder::new(),
            codec: PatternSetBuilder::ignoring_case(),
            imsi: PatternSetBuilder::new(),
            imei: PatternSetBuilder::new(),
            errors: Vec::new(),
        }
    }

    fn refuse(&mut self, id: &str, reason: String) {
        self.errors.push(FilterError { id: id.to_owned(), reason });
    }

    fn add(&mut self, filter: &Filter) {
        if filter.kind == FilterKind::Bpf {
            self.set.asked.bpf = true;
        } else {
            self.set.asked.other = true;
        }
        match self.try_add(filter) {
            Ok(rule) => {
                let id: Arc<str> = filter.id.as_str().into();
                self.set.known.insert(Arc::clone(&id));
                self.set.ids.push(id);
                self.set.applied.push(Applied { filter: filter.clone(), rule });
            }
            Err(reason) => self.refuse(&filter.id, reason),
        }
    }

    /// Puts the pattern where it belongs; the answer is how it is compared.
    fn try_add(&mut self, filter: &Filter) -> Result<&'static str, String> {
        filter.validate().map_err(|e| e.to_string())?;
        let mode = self.options.mode;
        if !filter.kind.applies(mode) {
            return Err(format!("{} filters do not apply in {} mode", filter.kind.name(), mode.name()));
        }
        let at = self.set.applied.len();
        if at >= MAX_FILTERS {
            return Err(format!("more than {MAX_FILTERS} filters"));
        }
        let id = PatternId(u32::try_from(at).map_err(|e| e.to_string())?);
        let (pattern, dialect): (&str, Dialect) = (&filter.pattern, filter.dialect);
        match filter.kind {
            FilterKind::SipUser => keep(&mut self.user, identity::parse_user(pattern, dialect), id),
            FilterKind::SipUri => keep(&mut self.uri, identity::parse_uri(pattern, dialect), id),
            FilterKind::CallId => keep(&mut self.call_id, identity::parse_call_id(pattern), id),
            FilterKind::Codec => keep(&mut self.codec, codec::parse(pattern), id),
            FilterKind::Imsi => keep(&mut self.imsi, device::parse_imsi(pattern), id),
            FilterKind::Imei => keep(&mut self.imei, device::parse_imei(pattern), id),
            FilterKind::PhoneNumber => self.phone.add(pattern, id).map_err(|e| e.to_string()),
            FilterKind::IpAddress => {
                let network = ip::parse(pattern).map_err(|e| e.to_string())?;
                self.set.ip.add(network, id);
                Ok(ip::rule(network))
            }
            FilterKind::Bpf => {
                if self.set.bpf.len() >= MAX_BPF_FILTERS {
                    return Err(format!("more than {MAX_BPF_FILTERS} bpf filters"));
                }
                self.set.bpf.push((FilterIndex(id.0), pattern.to_owned()));
                Ok("pcap-filter expression")
            }
            FilterKind::DnsDomain
            | FilterKind::EmailAddress
            | FilterKind::EmailSubject
            | FilterKind::TlsSni
            | FilterKind::TlsJa3
            | FilterKind::TlsJa3s
            | FilterKind::TlsJa4
            | FilterKind::HttpHost
            | FilterKind::HttpUrl => Err(format!("this version cannot apply {} filters", filter.kind.name())),
        }
    }

    fn finish(self) -> (FilterSet, Vec<FilterError>) {
        let Self { mut set, mut errors, user, uri, phone, call_id, codec, imsi, imei, .. } = self;
        let mut refused: Vec<(PatternId, SetError)> = Vec::new();
        let mut built = |builder: PatternSetBuilder| {
            let (patterns, more) = builder.build();
            refused.extend(more);
            patterns
        };
        set.user = built(user);
        set.uri = built(uri);
        set.call_id = built(call_id);
        set.codec = built(codec);
        set.imsi = built(imsi);
        set.imei = built(imei);
        let (patterns, more) = phone.build();
        set.phone = patterns;
        refused.extend(more);
        for (id, error) in refused {
            errors.extend(set.id(FilterIndex(id.0)).map(|id| FilterError { id: id.to_string(), reason: error.to_string() }));
        }
        (set, errors)
    }
}

fn keep(
    builder: &mut PatternSetBuilder,
    pattern: Result<Pattern, super::BadPattern>,
    id: PatternId,
) -> Result<&'static str, String> {
    let pattern = pattern.map_err(|e| e.to_string())?;
    builder.add(&pattern, id).map_err(|e| e.to_string())?;
    Ok(pattern.rule())
}

#[cfg(test)]
mod tests;
