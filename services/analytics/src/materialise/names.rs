//! The texts that occur as values of dimensions, each kept once a project and known by a number.

use std::sync::Arc;

use hashbrown::HashMap;

/// A value of a dimension within one project and partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Symbol(u32);

impl Symbol {
    /// The event has no value.
    pub(crate) const MISSING: Self = Self(0);
    /// One of the values beyond the limit.
    pub(crate) const OTHER: Self = Self(1);
    /// Symbols of texts start here.
    const FIRST_TEXT: u32 = 2;
}

/// What a symbol stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Value {
    /// The event has no value.
    Missing,
    /// This one.
    Text(Arc<str>),
    /// One of those beyond the limit on distinct values.
    Other,
}

/// The texts of a project. Cloning is cheap: clones share what is there and part when one of them grows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Texts(Arc<Vec<Arc<str>>>);

impl Texts {
    /// What the symbol stands for.
    pub(crate) fn value(&self, symbol: Symbol) -> Value {
        match symbol {
            Symbol::MISSING => Value::Missing,
            Symbol::OTHER => Value::Other,
            Symbol(id) => Value::Text(self.0[(id - Symbol::FIRST_TEXT) as usize].clone()),
        }
    }

    /// The text that the symbol stands for, if it is one.
    pub(crate) fn text(&self, symbol: Symbol) -> Option<&str> {
        symbol.0.checked_sub(Symbol::FIRST_TEXT).map(|index| &*self.0[index as usize])
    }
}

/// Gives texts their symbols. It only grows; the cubes, which bound their values, decide what is worth a symbol.
#[derive(Debug, Default)]
pub(crate) struct Names {
    symbols: HashMap<Arc<str>, Symbol>,
    texts: Texts,
}

impl Names {
    /// The symbol of a text, if it has one.
    pub(crate) fn get(&self, text: &str) -> Option<Symbol> {
        self.symbols.get(text).copied()
    }

    /// The symbol of a text, given now if need be.
    pub(crate) fn intern(&mut self, text: &str) -> Symbol {
        if let Some(symbol) = self.get(text) {
            return symbol;
        }
        let texts = Arc::make_mut(&mut self.texts.0);
        let id =
            u32::try_from(texts.len()).expect("cubes bound their values far below 2^32") + Symbol::FIRST_TEXT;
        let text: Arc<str> = text.into();
        texts.push(text.clone());
        self.symbols.insert(text, Symbol(id));
        Symbol(id)
    }

    /// All texts.
    pub(crate) fn texts(&self) -> &Texts {
        &self.texts
    }
}
