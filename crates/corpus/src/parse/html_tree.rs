//! HTML into the [`Tree`], by `html5ever`'s rules for tag soup, under limits.
//!
//! The standard's tree building can blow up on hostile input (formatting elements are reopened in every paragraph;
//! every start tag walks the open elements; every attribute is looked for among those before it in its tag). So the
//! input is fed in small pieces, and the number of nodes and attributes, the depth and the time are checked between them.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use html5ever::interface::{ElementFlags, NodeOrText, QuirksMode, TreeSink};
use html5ever::tendril::{StrTendril, TendrilSink};
use html5ever::{Attribute, LocalName, QualName, ns, parse_document};

use super::tree::{Data, MAX_DEPTH, NodeId, Tree};
use super::{MAX_MARKUP, ParseError};

/// Most nodes and attributes of one document, at some 150 bytes each.
const MAX_NODES: usize = 5_000_000;
/// Bytes fed to the parser between two checks of the limits.
const PIECE: usize = 4096;
/// Time for one document.
const MAX_TIME: Duration = Duration::from_secs(60);

/// Reads HTML, however broken.
///
/// # Errors
/// [`ParseError::TooDeep`] or [`ParseError::TooLarge`] where the tree outgrows its limits, [`ParseError::TooSlow`] where
/// reading outlasts [`MAX_TIME`].
pub(super) fn from_html(text: &str) -> Result<Tree, ParseError> {
    if text.len() as u64 > MAX_MARKUP {
        return Err(ParseError::TooLarge { what: "bytes of one marked-up document", limit: MAX_MARKUP });
    }
    // A sane page has a node per dozen bytes; more nodes than bytes means that elements are being multiplied.
    let most_nodes = text.len().saturating_add(1024).min(MAX_NODES);
    within(text, most_nodes, Instant::now() + MAX_TIME)
}

/// [`from_html`], with at most so many nodes and attributes, until then.
fn within(text: &str, most_nodes: usize, deadline: Instant) -> Result<Tree, ParseError> {
    let mut parser = parse_document(Sink::new(most_nodes), html5ever::ParseOpts::default());
    let mut rest = text;
    while !rest.is_empty() {
        let mut cut = rest.len().min(PIECE);
        while !rest.is_char_boundary(cut) {
            cut -= 1;
        }
        let (piece, after) = rest.split_at(cut);
        parser.process(StrTendril::from(piece));
        rest = after;
        let sink = &parser.tokenizer.sink.sink;
        if sink.deepest.get() > MAX_DEPTH {
            return Err(ParseError::TooDeep { limit: MAX_DEPTH });
        }
        if sink.tree.borrow().weight() > most_nodes {
            return Err(ParseError::TooLarge { what: "HTML nodes and attributes", limit: most_nodes as u64 });
        }
        if Instant::now() > deadline {
            return Err(ParseError::TooSlow { seconds: MAX_TIME.as_secs() });
        }
    }
    let tree = parser.finish();
    if depth(&tree) > MAX_DEPTH {
        return Err(ParseError::TooDeep { limit: MAX_DEPTH });
    }
    Ok(tree)
}

/// Depth of the finished tree, walked without recursion.
fn depth(tree: &Tree) -> usize {
    let mut deepest = 0;
    let mut stack = vec![(Tree::ROOT, 0)];
    while let Some((id, depth)) = stack.pop() {
        deepest = deepest.max(depth);
        stack.extend(tree.children(id).iter().map(|&child| (child, depth + 1)));
    }
    deepest
}

/// Takes the parser's orders and builds the tree.
struct Sink {
    tree: RefCell<Tree>,
    /// Name of each node, by id, as the parser wants it back.
    names: RefCell<Vec<Option<std::rc::Rc<QualName>>>>,
    /// Deepest place anything was appended.
    deepest: Cell<usize>,
    /// Names of the attributes of elements that got more of them later, as `<html>` and `<body>` do.
    merged: RefCell<HashMap<NodeId, HashSet<Arc<str>>>>,
    /// Most nodes and attributes. One more attribute is kept, which tells that they are too many.
    most: usize,
}

impl Sink {
    fn new(most: usize) -> Self {
        Self {
            tree: RefCell::new(Tree::new()),
            names: RefCell::new(Vec::new()),
            deepest: Cell::new(0),
            merged: RefCell::new(HashMap::new()),
            most,
        }
    }

    /// How many more attributes are kept.
    fn room(&self) -> usize {
        (self.most + 1).saturating_sub(self.tree.borrow().weight())
    }

    fn create(&self, data: Data, name: Option<QualName>) -> NodeId {
        let id = self.tree.borrow_mut().push(data);
        let mut names = self.names.borrow_mut();
        names.resize(id.0 as usize, None);
        names.push(name.map(std::rc::Rc::new));
        id
    }

    fn note_depth(&self, parent: NodeId) {
        let tree = self.tree.borrow();
        let (mut depth, mut at) = (1, tree.parent(parent));
        while let Some(id) = at {
            depth += 1;
            if depth > MAX_DEPTH {
                break;
            }
            at = tree.parent(id);
        }
        self.deepest.set(self.deepest.get().max(depth));
    }

    fn detach(tree: &mut Tree, target: NodeId) {
        if let Some(parent) = tree.parent(target) {
            // The parser moves what it appended last far more often than anything else: search from the end.
            if let Some(at) = tree.children(parent).iter().rposition(|&child| child == target) {
                tree.node_mut(parent).children.remove(at);
            }
            tree.node_mut(target).parent = None;
        }
    }
}

impl TreeSink for Sink {
    type Handle = NodeId;
    type Output = Tree;
    type ElemName<'a> = OwnedName;

    fn finish(self) -> Tree {
        self.tree.into_inner()
    }

    fn parse_error(&self, _: Cow<'static, str>) {}

    fn get_document(&self) -> NodeId {
        Tree::ROOT
    }

    fn elem_name<'a>(&'a self, target: &'a NodeId) -> OwnedName {
        let names = self.names.borrow();
        let name = names.get(target.0 as usize).cloned().flatten();
        OwnedName(name.unwrap_or_else(|| std::rc::Rc::new(QualName::new(None, ns!(), LocalName::from("")))))
    }

    fn create_element(&self, name: QualName, attrs: Vec<Attribute>, _: ElementFlags) -> NodeId {
        let room = self.room();
        let data = {
            let mut tree = self.tree.borrow_mut();
            let local = tree.intern(&name.local);
            let attrs = attrs
                .iter()
                .take(room)
                .map(|attr| (tree.intern(&attr.name.local), attr.value.to_string()))
                .collect::<Vec<_>>();
            Data::Element(local, attrs)
        };
        self.create(data, Some(name))
    }

    fn create_comment(&self, _: StrTendril) -> NodeId {
        self.create(Data::Other, None)
    }

    fn create_pi(&self, _: StrTendril, _: StrTendril) -> NodeId {
        self.create(Data::Other, None)
    }

    fn append(&self, parent: &NodeId, child: NodeOrText<NodeId>) {
        match child {
            NodeOrText::AppendNode(node) => {
                let mut tree = self.tree.borrow_mut();
                Self::detach(&mut tree, node);
                tree.append(*parent, node);
            }
            NodeOrText::AppendText(text) => self.tree.borrow_mut().append_text(*parent, &text),
        }
        self.note_depth(*parent);
    }

    fn append_based_on_parent_node(&self, element: &NodeId, previous: &NodeId, child: NodeOrText<NodeId>) {
        let has_parent = self.tree.borrow().parent(*element).is_some();
        if has_parent {
            self.append_before_sibling(element, child);
        } else {
            self.append(previous, child);
        }
    }

    fn append_doctype_to_document(&self, _: StrTendril, _: StrTendril, _: StrTendril) {}

    fn get_template_contents(&self, target: &NodeId) -> NodeId {
        *target
    }

    fn same_node(&self, x: &NodeId, y: &NodeId) -> bool {
        x == y
    }

    fn set_quirks_mode(&self, _: QuirksMode) {}

    fn append_before_sibling(&self, sibling: &NodeId, child: NodeOrText<NodeId>) {
        let node = match child {
            NodeOrText::AppendNode(node) => {
                Self::detach(&mut self.tree.borrow_mut(), node);
                node
            }
            NodeOrText::AppendText(text) => self.create(Data::Text(text.to_string()), None),
        };
        let mut tree = self.tree.borrow_mut();
        let Some(parent) = tree.parent(*sibling) else { return };
        let children = tree.children(parent);
        let at = children.iter().rposition(|child| child == sibling).unwrap_or(children.len());
        tree.node_mut(parent).children.insert(at, node);
        tree.node_mut(node).parent = Some(parent);
        drop(tree);
        self.note_depth(parent);
    }

    fn add_attrs_if_missing(&self, target: &NodeId, attrs: Vec<Attribute>) {
        let room = self.room();
        let (mut tree, mut merged) = (self.tree.borrow_mut(), self.merged.borrow_mut());
        let known = merged.entry(*target).or_insert_with(|| match &tree.node(*target).data {
            Data::Element(_, attrs) => attrs.iter().map(|(name, _)| name.clone()).collect(),
            _ => HashSet::new(),
        });
        let mut new = Vec::new();
        for attr in attrs {
            if new.len() < room && !known.contains(&*attr.name.local) {
                let name = tree.intern(&attr.name.local);
                known.insert(name.clone());
                new.push((name, attr.value.to_string()));
            }
        }
        tree.add_attributes(*target, new);
    }

    fn remove_from_parent(&self, target: &NodeId) {
        Self::detach(&mut self.tree.borrow_mut(), *target);
    }

    fn reparent_children(&self, node: &NodeId, new_parent: &NodeId) {
        let mut tree = self.tree.borrow_mut();
        let children = std::mem::take(&mut tree.node_mut(*node).children);
        for child in children {
            tree.append(*new_parent, child);
        }
    }
}

/// A name handed back to the parser.
#[derive(Debug)]
struct OwnedName(std::rc::Rc<QualName>);

impl html5ever::interface::ElemName for OwnedName {
    fn ns(&self) -> &html5ever::Namespace {
        &self.0.ns
    }

    fn local_name(&self) -> &LocalName {
        &self.0.local
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn attributes_that_come_later_are_kept_once_and_counted() {
        let tree = from_html("<html a=1><body b=2><html a=9 c=3><body b=9 d=4 d=5><html c=9>x").unwrap();
        let [html, body] = ["html", "body"].map(|name| tree.find(Tree::ROOT, name).unwrap());
        let of = |id, names: [&str; 3]| names.map(|name| tree.attr(id, name).map(str::to_owned));
        assert_eq!(of(html, ["a", "c", "b"]), [Some("1".into()), Some("3".into()), None]);
        assert_eq!(of(body, ["b", "d", "a"]), [Some("2".into()), Some("4".into()), None]);
        // The document, html, head, body, a text, and four attributes.
        assert_eq!(tree.weight(), 9);

        let html: String = (0..2000).map(|n| format!("<html a{n}=1>")).collect();
        let result = within(&html, 1000, later());
        assert!(
            matches!(result, Err(ParseError::TooLarge { what: "HTML nodes and attributes", limit: 1000 })),
            "{result:?}"
        );
        assert!(within(&html, 2010, later()).is_ok());
    }

    #[test]
    fn no_more_attributes_are_kept_than_the_limit_lets() {
        let attrs = || {
            let name = |n| QualName::new(None, ns!(), LocalName::from(format!("a{n}")));
            (0..500).map(|n| Attribute { name: name(n), value: "x".into() }).collect::<Vec<_>>()
        };
        let name = || QualName::new(None, ns!(html), LocalName::from("b"));
        let sink = Sink::new(100);
        for _ in 0..20 {
            sink.create_element(name(), attrs(), ElementFlags::default());
        }
        // Past the limit, elements have no attributes.
        assert_eq!(sink.tree.borrow().weight(), 101 + 1 + 19);
        let sink = Sink::new(100);
        let first = sink.create_element(name(), Vec::new(), ElementFlags::default());
        sink.add_attrs_if_missing(&first, attrs());
        assert_eq!(sink.tree.borrow().weight(), 101);
    }

    #[test]
    fn what_takes_too_long_is_given_up() {
        // The parser compares every attribute with all before it in its tag: this one would take hours.
        let attributes: String = (0..4_000_000).map(|n| format!(" a{n}")).collect();
        let deadline = Instant::now() + Duration::from_millis(300);
        let result = within(&format!("<html><p{attributes}>"), MAX_NODES, deadline);
        assert_eq!(result.err(), Some(ParseError::TooSlow { seconds: 60 }));
        assert!(within("<html><p>x", MAX_NODES, later()).is_ok());
    }

    #[test]
    fn attributes_that_come_later_take_linear_time() {
        // With quadratic work, this would take many times the limit.
        let html: String = (0..1_000_000).map(|n| format!("<html a{n}=1>")).collect();
        assert!(from_html(&html).is_ok());
    }
}
