//! No two modules of a package import each other, directly or through others, so that each file can be read knowing
//! only what is below it.
//!
//! A module is a file. It imports another if a path in its code (a `use`, a type, a call) leads to an item defined
//! there; a name that is re-exported counts as the module that defines it. `mod` lines and test code do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cargo_metadata::MetadataCommand;
use syn::visit::{self, Visit};
use syn::{Attribute, Ident, Item, ItemMod, ItemUse, UseTree};

/// Path of a module from its crate's root: `[]` is `lib.rs`, `["store", "writer"]` is `store/writer.rs`.
type ModulePath = Vec<String>;

#[test]
fn no_two_modules_of_a_package_import_each_other() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let mut circles = Vec::new();
    for package in metadata.workspace_packages() {
        for target in package.targets.iter().filter(|target| target.is_lib()) {
            let modules = Modules::read(target.src_path.as_std_path());
            circles
                .extend(modules.circles().into_iter().map(|circle| format!("{}:\n{circle}", package.name)));
        }
    }
    assert!(circles.is_empty(), "modules import each other:\n{}", circles.join("\n"));
}

#[test]
fn a_circle_is_found_through_re_exports_relative_paths_and_calls() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    write("lib.rs", "mod low; mod mid; mod top; pub use mid::Mid;");
    write("low.rs", "pub struct Low; #[cfg(test)] mod tests { use crate::top::Top; }");
    write("mid.rs", "mod part; pub use part::Mid; pub fn make() {}");
    write("mid/part.rs", "pub struct Mid(crate::low::Low);");
    write("top.rs", "pub struct Top; fn f() { let _: crate::Mid = todo!(); }");
    let root = folder.path().join("lib.rs");
    assert_eq!(Modules::read(&root).circles(), Vec::<String>::new());

    write("mid/part.rs", "pub struct Mid(crate::low::Low); fn f() { super::make() }");
    assert_eq!(Modules::read(&root).circles(), ["  mid -> mid::part: Mid\n  mid::part -> mid: make"]);

    write("mid/part.rs", "pub struct Mid(crate::low::Low);");
    write("low.rs", "use crate::Mid; pub struct Low;");
    assert_eq!(Modules::read(&root).circles(), ["  low -> mid::part: Mid\n  mid::part -> low: Low"]);
}

/// The modules of one crate with the paths that each one names.
#[derive(Default)]
struct Modules {
    files: BTreeMap<ModulePath, Names>,
}

impl Modules {
    fn read(root: &Path) -> Self {
        let mut modules = Self::default();
        modules.read_file(root, Vec::new());
        modules
    }

    fn read_file(&mut self, file: &Path, path: ModulePath) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut names = Names::default();
        names.visit_file(
            &syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())),
        );
        let folder = if path.is_empty() { file.with_file_name("") } else { file.with_extension("") };
        for child in names.children.clone() {
            let path = [path.as_slice(), std::slice::from_ref(&child)].concat();
            self.read_file(&folder.join(child).with_extension("rs"), path);
        }
        self.files.insert(path, names);
    }

    /// Each pair of modules of which one imports the other, with what it takes from there.
    fn imports(&self) -> BTreeMap<(&ModulePath, &ModulePath), BTreeSet<String>> {
        let mut imports: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for (module, names) in &self.files {
            for path in &names.paths {
                let Some((target, item)) = self.resolve(module, path, 0) else { continue };
                if target != module {
                    imports.entry((module, target)).or_default().insert(item);
                }
            }
        }
        imports
    }

    /// The module that defines what `path` names in `module`; `None` for what is not this crate's.
    fn resolve(&self, module: &[String], path: &[String], depth: u8) -> Option<(&ModulePath, String)> {
        let (mut at, mut rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (module.to_vec(), &path[1..]),
            "super" => (module[..module.len().checked_sub(1)?].to_vec(), &path[1..]),
            first if self.files[module].children.contains(first) => (module.to_vec(), path),
            // A module that a `use` brought in: `use crate::store; … store::open()`.
            first if path.len() > 1 => {
                let import = self.files[module].uses.get(first).filter(|import| import.as_slice() != path)?;
                let path = [import.as_slice(), &path[1..]].concat();
                return if depth < 8 { self.resolve(module, &path, depth + 1) } else { None };
            }
            _ => return None,
        };
        while let Some(next) = rest.first() {
            if next == "super" {
                at.pop()?;
            } else if self.files.get(&at)?.children.contains(next) {
                at.push(next.clone());
            } else {
                break;
            }
            rest = &rest[1..];
        }
        let (target, names) = self.files.get_key_value(&at)?;
        let Some(item) = rest.first() else { return Some((target, "(the module)".to_owned())) };
        match names.uses.get(item) {
            Some(re_export) if depth < 8 => self.resolve(target, re_export, depth + 1),
            _ => Some((target, item.clone())),
        }
    }

    /// Every circle, as its imports in lines.
    fn circles(&self) -> Vec<String> {
        let imports = self.imports();
        let reach = |from: &ModulePath| {
            let mut seen = BTreeSet::new();
            let mut next = vec![from];
            while let Some(module) = next.pop() {
                let below = imports.keys().filter(|(user, _)| *user == module).map(|(_, used)| *used);
                next.extend(below.filter(|used| seen.insert(*used)).collect::<Vec<_>>());
            }
            seen
        };
        let reached: BTreeMap<&ModulePath, _> =
            self.files.keys().map(|module| (module, reach(module))).collect();
        let mut circles = BTreeSet::new();
        for (module, below) in &reached {
            let circle: BTreeSet<_> =
                below.iter().copied().filter(|used| reached[used].contains(module)).collect();
            if !circle.is_empty() {
                circles.insert(circle);
            }
        }
        let name = |path: &ModulePath| if path.is_empty() { "lib".to_owned() } else { path.join("::") };
        let lines = |circle: &BTreeSet<&ModulePath>| {
            let ties =
                imports.iter().filter(|((user, used), _)| circle.contains(user) && circle.contains(used));
            let line = |((user, used), items): (&(&ModulePath, &ModulePath), &BTreeSet<String>)| {
                let items = items.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                format!("  {} -> {}: {items}", name(user), name(used))
            };
            ties.map(line).collect::<Vec<_>>().join("\n")
        };
        circles.iter().map(lines).collect()
    }
}

/// What one file declares and names.
#[derive(Default)]
struct Names {
    /// Child modules in files of their own.
    children: BTreeSet<String>,
    /// Name → path, by `use`.
    uses: BTreeMap<String, Vec<String>>,
    /// Every path of the file, `use` lines included.
    paths: BTreeSet<Vec<String>>,
}

impl Names {
    fn add_use(&mut self, prefix: &[String], tree: &UseTree) {
        let joined = |ident: &Ident| [prefix, &[ident.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_use(&joined(&path.ident), &path.tree),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(prefix, tree)),
            UseTree::Name(name) if name.ident == "self" => {
                self.add_import(prefix.last().cloned(), prefix.to_vec())
            }
            UseTree::Name(name) => self.add_import(Some(name.ident.to_string()), joined(&name.ident)),
            UseTree::Rename(rename) => {
                self.add_import(Some(rename.rename.to_string()), joined(&rename.ident))
            }
            UseTree::Glob(_) => self.add_import(None, prefix.to_vec()),
        }
    }

    fn add_import(&mut self, name: Option<String>, path: Vec<String>) {
        if let Some(name) = name {
            self.uses.insert(name, path.clone());
        }
        self.paths.insert(path);
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        if !attributes(item).iter().any(is_test) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let test = matches!(item, syn::ImplItem::Fn(function) if function.attrs.iter().any(is_test));
        if !test {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        match module.content {
            None => _ = self.children.insert(module.ident.to_string()),
            Some(_) => visit::visit_item_mod(self, module),
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.add_use(&[], &item.tree);
    }

    /// A macro call's tokens have no syntax tree: every word that looks like a path counts as one.
    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let text = call.tokens.to_string().replace(" :: ", "::");
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        for path in words.filter(|word| word.contains("::")) {
            self.paths.insert(path.trim_matches(':').split("::").map(str::to_owned).collect());
        }
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {} // `pub(super)` names a module, and takes nothing from it

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.paths.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

fn is_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("test")
        || attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Meta>().is_ok_and(|condition| condition.path().is_ident("test"))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
