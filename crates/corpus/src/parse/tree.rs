//! One tree for XML and HTML: an arena of elements and text, built under limits.
//!
//! XML is read as a stream of events with `quick-xml`; `html_tree` fills the same arena from `html5ever`. Entities
//! that a document declares for itself are never expanded: a reference to one is an error, so "billion laughs"
//! costs nothing. Depth is limited, so that walking the tree by recursion is safe on any thread's stack.

use std::collections::HashSet;
use std::sync::Arc;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::{MAX_MARKUP, ParseError};

/// Deepest nesting accepted, in elements. Legal XML stays below 40; bad HTML rarely passes 200.
pub(super) const MAX_DEPTH: usize = 512;

/// Most nodes and attributes of one XML document, at some 110 bytes each. The longest titles of the United States Code have
/// half as many.
pub(super) const MAX_NODES: usize = 8_000_000;

/// Index of a node in its [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeId(pub(super) u32);

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum Data {
    /// The document itself, parent of everything.
    Document,
    /// An element: qualified name as written in the source, attributes in order.
    Element(Arc<str>, Vec<(Arc<str>, String)>),
    /// Character data.
    Text(String),
    /// Comments and the like: kept as a node only because an HTML parser asks for it.
    Other,
}

/// A node and its links.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) data: Data,
    pub(super) parent: Option<NodeId>,
    pub(super) children: Vec<NodeId>,
    /// Place among the parent's children. Holds for XML, whose nodes never move.
    index: u32,
}

/// The arena. Node 0 is the document.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    names: HashSet<Arc<str>>,
    /// How many attributes all elements have.
    attributes: usize,
}

impl Tree {
    pub(super) const ROOT: NodeId = NodeId(0);

    pub(super) fn new() -> Self {
        let document = Node { data: Data::Document, parent: None, children: Vec::new(), index: 0 };
        Self { nodes: vec![document], names: HashSet::new(), attributes: 0 }
    }

    /// The one shared copy of `name`.
    pub(super) fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(found) = self.names.get(name) {
            return found.clone();
        }
        let shared: Arc<str> = Arc::from(name);
        self.names.insert(shared.clone());
        shared
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// How many nodes and attributes there are: what memory goes by.
    pub(super) fn weight(&self) -> usize {
        self.nodes.len() + self.attributes
    }

    /// Adds a node without a parent.
    pub(super) fn push(&mut self, data: Data) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        if let Data::Element(_, attributes) = &data {
            self.attributes += attributes.len();
        }
        self.nodes.push(Node { data, parent: None, children: Vec::new(), index: 0 });
        id
    }

    /// Adds attributes to an element, which must not have them.
    pub(super) fn add_attributes(&mut self, id: NodeId, new: Vec<(Arc<str>, String)>) {
        let added = new.len();
        if let Data::Element(_, attributes) = &mut self.node_mut(id).data {
            attributes.extend(new);
            self.attributes += added;
        }
    }

    /// The node `id`. Ids come from this tree only, so the index holds.
    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// Makes `child` the last child of `parent`.
    pub(super) fn append(&mut self, parent: NodeId, child: NodeId) {
        let index = self.children(parent).len() as u32;
        let node = self.node_mut(child);
        (node.parent, node.index) = (Some(parent), index);
        self.node_mut(parent).children.push(child);
    }

    /// Appends text, joining it to a text node that is already last.
    pub(super) fn append_text(&mut self, parent: NodeId, text: &str) {
        if let Some(&last) = self.node(parent).children.last()
            && let Data::Text(existing) = &mut self.node_mut(last).data
        {
            existing.push_str(text);
            return;
        }
        let id = self.push(Data::Text(text.to_owned()));
        self.append(parent, id);
    }

    pub(super) fn children(&self, id: NodeId) -> &[NodeId] {
        &self.node(id).children
    }

    pub(super) fn parent(&self, id: NodeId) -> Option<NodeId> {
        self.node(id).parent
    }

    /// Qualified name of an element, `""` for anything else.
    pub(super) fn name(&self, id: NodeId) -> &str {
        match &self.node(id).data {
            Data::Element(name, _) => name,
            _ => "",
        }
    }

    pub(super) fn attr(&self, id: NodeId, name: &str) -> Option<&str> {
        match &self.node(id).data {
            Data::Element(_, attrs) => {
                attrs.iter().find(|(key, _)| &**key == name).map(|(_, value)| value.as_str())
            }
            _ => None,
        }
    }

    /// Child elements called `name`.
    pub(super) fn elements<'a>(&'a self, id: NodeId, name: &'a str) -> impl Iterator<Item = NodeId> + 'a {
        self.children(id).iter().copied().filter(move |&child| self.name(child) == name)
    }

    /// The first child element called `name`.
    pub(super) fn child(&self, id: NodeId, name: &str) -> Option<NodeId> {
        self.elements(id, name).next()
    }

    /// The element after `id` under the same parent, past white space only. For XML.
    pub(super) fn next_element(&self, id: NodeId) -> Option<NodeId> {
        let siblings = self.children(self.parent(id)?);
        siblings.get(self.node(id).index as usize + 1..)?.iter().copied().find_map(|sibling| {
            match &self.node(sibling).data {
                Data::Text(text) if text.trim().is_empty() => None,
                Data::Element(..) => Some(Some(sibling)),
                _ => Some(None),
            }
        })?
    }

    /// The nodes before and after `id` under the same parent. For XML.
    pub(super) fn neighbours(&self, id: NodeId) -> [Option<NodeId>; 2] {
        let Some(parent) = self.parent(id) else { return [None, None] };
        let (siblings, at) = (self.children(parent), self.node(id).index as usize);
        [at.checked_sub(1).and_then(|at| siblings.get(at).copied()), siblings.get(at + 1).copied()]
    }

    /// Whether only white space stands before `id` in its parent. For XML.
    pub(super) fn is_first(&self, id: NodeId) -> bool {
        let Some(parent) = self.parent(id) else { return true };
        let before = self.children(parent).get(..self.node(id).index as usize).unwrap_or_default();
        // Text nodes never follow each other, so two nodes back is far enough.
        before.len() < 2
            && before
                .iter()
                .all(|&node| matches!(&self.node(node).data, Data::Text(text) if text.trim().is_empty()))
    }

    /// Whether one of the first ten children is called `name`: where an enumerator or a heading stands. Bounded, so
    /// that asking it of every child of an element stays linear.
    pub(super) fn opens_with(&self, id: NodeId, name: &str) -> bool {
        self.children(id).iter().take(10).any(|&child| self.name(child) == name)
    }

    /// The first element called `name` below `id`, in document order.
    pub(super) fn find(&self, id: NodeId, name: &str) -> Option<NodeId> {
        self.descend(id, &|tree, node| tree.name(node) == name, 1).first().copied()
    }

    /// All elements called `name` below `id`, in document order.
    pub(super) fn find_all(&self, id: NodeId, name: &str) -> Vec<NodeId> {
        self.descend(id, &|tree, node| tree.name(node) == name, usize::MAX)
    }

    /// The nodes below `id` that `wanted` accepts, in document order, `limit` at most.
    pub(super) fn descend(
        &self,
        id: NodeId,
        wanted: &dyn Fn(&Tree, NodeId) -> bool,
        limit: usize,
    ) -> Vec<NodeId> {
        let mut found = Vec::new();
        let mut stack: Vec<NodeId> = self.children(id).iter().rev().copied().collect();
        while let Some(node) = stack.pop() {
            if found.len() >= limit {
                break;
            }
            if wanted(self, node) {
                found.push(node);
            }
            stack.extend(self.children(node).iter().rev());
        }
        found
    }

    /// All character data below `id`, whitespace collapsed.
    pub(super) fn text(&self, id: NodeId) -> String {
        let mut all = String::new();
        if let Data::Text(text) = &self.node(id).data {
            all.push_str(text);
        }
        for node in self.descend(id, &|tree, node| matches!(tree.node(node).data, Data::Text(_)), usize::MAX)
        {
            if let Data::Text(text) = &self.node(node).data {
                all.push_str(text);
            }
        }
        collapse(&all)
    }

    /// Text of the first element called `name` below `id`, when it is not empty.
    pub(super) fn text_of(&self, id: NodeId, name: &str) -> Option<String> {
        self.find(id, name).map(|node| self.text(node)).filter(|text| !text.is_empty())
    }

    /// Reads XML.
    ///
    /// # Errors
    /// [`ParseError::Xml`] where it is not well formed, [`ParseError::TooDeep`] beyond [`MAX_DEPTH`],
    /// [`ParseError::TooLarge`] beyond [`MAX_NODES`], [`ParseError::Entity`] at a reference to an entity the document
    /// declares.
    pub(super) fn from_xml(text: &str) -> Result<Self, ParseError> {
        if text.len() as u64 > MAX_MARKUP {
            return Err(ParseError::TooLarge { what: "bytes of one marked-up document", limit: MAX_MARKUP });
        }
        Self::within(text, MAX_NODES)
    }

    /// [`Self::from_xml`], with at most so many nodes and attributes.
    fn within(text: &str, most: usize) -> Result<Self, ParseError> {
        let mut tree = Self::new();
        let mut reader = Reader::from_str(text);
        let mut open = vec![Self::ROOT];
        let mut declared = false;
        loop {
            let at = reader.buffer_position();
            let wrong = |what: String| ParseError::Xml { offset: at, reason: what };
            let event = reader
                .read_event()
                .map_err(|error| ParseError::Xml { offset: at, reason: error.to_string() })?;
            let parent = *open.last().unwrap_or(&Self::ROOT);
            if tree.weight() > most {
                return Err(too_many(most));
            }
            match event {
                Event::Start(start) => {
                    let id = tree.element(&start, at, most)?;
                    tree.append(parent, id);
                    open.push(id);
                    if open.len() > MAX_DEPTH {
                        return Err(ParseError::TooDeep { limit: MAX_DEPTH });
                    }
                }
                Event::Empty(start) => {
                    let id = tree.element(&start, at, most)?;
                    tree.append(parent, id);
                }
                Event::End(_) => {
                    open.pop();
                }
                Event::Text(text) => {
                    tree.append_text(parent, &text);
                }
                Event::CData(data) => {
                    tree.append_text(parent, &data);
                }
                Event::GeneralRef(reference) => {
                    let name: &str = &reference;
                    match reference.resolve_char_ref() {
                        Ok(Some(character)) => tree.append_text(parent, character.encode_utf8(&mut [0; 4])),
                        Ok(None) => match quick_xml::escape::resolve_html5_entity(name) {
                            Some(text) => tree.append_text(parent, text),
                            None if declared => return Err(ParseError::Entity { name: name.to_owned() }),
                            None => tree.append_text(parent, &format!("&{name};")),
                        },
                        Err(error) => return Err(wrong(error.to_string())),
                    }
                }
                Event::DocType(doctype) => {
                    declared |= doctype.contains("<!ENTITY");
                }
                Event::Eof => break,
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            }
        }
        if open.len() > 1 {
            let name = open.last().map(|&id| tree.name(id).to_owned()).unwrap_or_default();
            let offset = reader.buffer_position();
            return Err(ParseError::Xml { offset, reason: format!("the input ends inside <{name}>") });
        }
        Ok(tree)
    }

    fn element(&mut self, start: &BytesStart<'_>, offset: u64, most: usize) -> Result<NodeId, ParseError> {
        let wrong = |reason: String| ParseError::Xml { offset, reason };
        let name = start.name();
        let name = self.intern(name.as_ref());
        let mut attrs = Vec::new();
        let mut seen = HashSet::new();
        for attr in start.attributes().with_checks(false) {
            let attr = attr.map_err(|error| wrong(error.to_string()))?;
            // One element can have as many as the whole document may.
            if self.weight() + attrs.len() >= most {
                return Err(too_many(most));
            }
            let key = self.intern(attr.key.as_ref());
            let value: &str = &attr.value;
            let value = quick_xml::escape::unescape(value)
                .map_or_else(|_| value.to_owned(), |text| text.into_owned());
            if seen.insert(key.clone()) {
                attrs.push((key, value));
            }
        }
        Ok(self.push(Data::Element(name, attrs)))
    }
}

fn too_many(most: usize) -> ParseError {
    ParseError::TooLarge { what: "XML nodes and attributes", limit: most as u64 }
}

/// Runs of whitespace to one space, none at the ends.
pub(super) fn collapse(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_one_element_are_counted_as_they_are_read() {
        let attributes: String = (0..100).map(|n| format!(" a{n}=''")).collect();
        assert_eq!(Tree::within(&format!("<a{attributes}/>"), 102).map(|tree| tree.weight()), Ok(102));
        // What stands after the limit is not looked at: the last one has no value.
        for end in ["/>", ">x</a>"] {
            let xml = format!("<a{attributes} broken{end}");
            assert!(matches!(Tree::within(&xml, 200), Err(ParseError::Xml { .. })));
            let result = Tree::within(&xml, 50).map(|tree| tree.weight());
            let limit = ParseError::TooLarge { what: "XML nodes and attributes", limit: 50 };
            assert_eq!(result, Err(limit), "{end}");
        }
    }
}
