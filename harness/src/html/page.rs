//! The frame of every page: head, contents, sections, and the command that made it.
//!
//! **Invariant**: a page asks for nothing: its policy forbids every request, and script and style are
//! in it.

use std::fmt::{self, Display, Formatter};

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::machine::STOPPED;
use super::tables::in_code;
use crate::remedies;
use crate::report::Refusal;
use crate::terminal::harmless;
use cxl_firmware::error::Code;

/// How a page's result is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// All is as it should be.
    Good,
    /// Something is not.
    Bad,
    /// It was refused.
    Refused,
    /// Something is other than it was.
    Changed,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Refused => "refused",
            Self::Changed => "changed",
        }
    }

    /// A shape, for those who see no colour.
    fn shape(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Bad => "✕",
            Self::Refused => "⊘",
            Self::Changed => "Δ",
        }
    }
}

struct Section {
    id: &'static str,
    title: &'static str,
    body: Markup,
}

/// A page.
pub struct Page {
    title: String,
    command: String,
    verdict: Option<(Tone, String)>,
    lead: Vec<String>,
    alarms: Vec<Markup>,
    sections: Vec<Section>,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("title", &self.title).finish_non_exhaustive()
    }
}

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      base-uri 'none'; form-action 'none'";

impl Page {
    pub(super) fn new(title: String, command: &str) -> Self {
        Self {
            title,
            command: command.to_owned(),
            verdict: None,
            lead: Vec::new(),
            alarms: Vec::new(),
            sections: Vec::new(),
        }
    }

    /// How it went.
    pub(super) fn verdict(&mut self, tone: Tone, words: String) {
        self.verdict = Some((tone, words));
    }

    /// A sentence at the top.
    pub(super) fn lead(&mut self, words: &str) {
        if !words.is_empty() {
            self.lead.push(words.to_owned());
        }
    }

    /// A sentence at the top that is not to be missed.
    pub(super) fn alarm(&mut self, words: &str) {
        self.alarms.push(html! { p.alarm { span aria-hidden="true" { "✕ " } (words) } });
    }

    /// Why the firmware refused, at what of the whole path, and what to do about it.
    pub(super) fn refused(&mut self, refusal: &Refusal, at: Option<&str>) {
        let Refusal { phase, code, message } = refusal;
        let remedy = Code::new(*code).and_then(remedies::of);
        self.alarms.push(html! {
            div.alarm {
                p {
                    span aria-hidden="true" { "⊘ " }
                    strong { "Refused in the phase " (phase) ": " } (message)
                    @if *code != 0 { " (" code { (format!("{code:#06x}")) } ")" }
                }
                @if let Some(at) = at { p { "In the whole path it is " a href={ "#" (STOPPED) } { (at) } "." } }
                @if let Some(remedy) = remedy { p { strong { "What to do: " } (in_code(remedy)) } }
            }
        });
    }

    pub(super) fn section(&mut self, id: &'static str, title: &'static str, body: Markup) {
        self.sections.push(Section { id, title, body });
    }

    pub(super) fn maybe(&mut self, id: &'static str, title: &'static str, body: Option<Markup>) {
        if let Some(body) = body {
            self.section(id, title, body);
        }
    }

    fn markup(&self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="generator" content=(concat!("cxl-harness ", env!("CARGO_PKG_VERSION")));
                    meta http-equiv="Content-Security-Policy" content=(POLICY);
                    title { (self.title) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    a.skip href="#main" { "Skip to the report" }
                    header {
                        h1 { (self.title) }
                        @if let Some((tone, words)) = &self.verdict {
                            p class={ "verdict " (tone.class()) } {
                                span.shape aria-hidden="true" { (tone.shape()) } " " (words)
                            }
                        }
                        @for words in &self.lead { p.lead { (words) } }
                        @for alarm in &self.alarms { (alarm) }
                        p.made { "Made by " code { (self.command) } }
                    }
                    nav aria-label="Contents" {
                        ul {
                            @for Section { id, title, .. } in &self.sections {
                                li { a href={ "#" (id) } { (title) } }
                            }
                        }
                    }
                    main id="main" tabindex="-1" {
                        @for Section { id, title, body } in &self.sections {
                            section id=(id) aria-labelledby={ (id) "-title" } {
                                h2 id={ (id) "-title" } { (title) }
                                (body)
                            }
                        }
                    }
                    footer {
                        p {
                            "cxl-harness " (env!("CARGO_PKG_VERSION")) ". This page asks for nothing from \
                             any network; save, mail or print it as it is."
                        }
                    }
                    script { (PreEscaped(SCRIPT)) }
                }
            }
        }
    }
}

impl Display for Page {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // What a page says is whoever's who wrote the file that it is of.
        f.write_str(&harmless(&self.markup().0))?;
        f.write_str("\n")
    }
}
