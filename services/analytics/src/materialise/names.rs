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

    /// Whether it stands for a text.
    pub(crate) fn is_text(self) -> bool {
        self.index().is_some()
    }

    fn index(self) -> Option<usize> {
        self.0.checked_sub(Self::FIRST_TEXT).map(|index| index as usize)
    }
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

/// The texts of a project. Cloning is cheap: clones share what is there and part when one of them changes.
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
        symbol.index().map(|index| &*self.0[index])
    }
}

/// Gives texts their symbols while somebody holds them.
#[derive(Debug, Default)]
pub(crate) struct Names {
    symbols: HashMap<Arc<str>, Symbol>,
    texts: Texts,
    /// By text: how often it is held.
    holds: Vec<u32>,
    unused: Vec<Symbol>,
}

impl Names {
    /// The symbol of a text, if it has one.
    pub(crate) fn get(&self, text: &str) -> Option<Symbol> {
        self.symbols.get(text).copied()
    }

    /// The symbol of a text, given now if need be; it stays until it was released as often as it was held.
    pub(crate) fn hold(&mut self, text: &str) -> Symbol {
        let symbol = self.get(text).unwrap_or_else(|| self.give(text));
        let index = symbol.index().expect("texts have symbols of their own");
        self.holds[index] += 1;
        symbol
    }

    fn give(&mut self, text: &str) -> Symbol {
        let text: Arc<str> = text.into();
        let texts = Arc::make_mut(&mut self.texts.0);
        let symbol = self.unused.pop().unwrap_or_else(|| {
            let index = u32::try_from(texts.len()).expect("memory ends before 2^32 texts");
            texts.push(text.clone());
            self.holds.push(0);
            Symbol(Symbol::FIRST_TEXT + index)
        });
        texts[symbol.index().expect("it is a text's")] = text.clone();
        self.symbols.insert(text, symbol);
        symbol
    }

    /// Gives up one hold. What is no text is not held.
    pub(crate) fn release(&mut self, symbol: Symbol) {
        let Some(index) = symbol.index() else { return };
        self.holds[index] -= 1;
        if self.holds[index] == 0 {
            let text = std::mem::replace(&mut Arc::make_mut(&mut self.texts.0)[index], "".into());
            self.symbols.remove(&text);
            self.unused.push(symbol);
        }
    }

    /// All texts.
    pub(crate) fn texts(&self) -> &Texts {
        &self.texts
    }

    /// How many texts are held.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.symbols.len()
    }
}
