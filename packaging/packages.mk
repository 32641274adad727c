# What the module is made of, part of the Makefile.

.PHONY: licences sbom

licences: ## licences, sources and bans of all crates, by cargo-deny and deny.toml
	@packaging/cargo-tool.sh cargo-deny deny --workspace --locked check licenses bans sources

sbom: ## bill of materials of the module (CycloneDX): dist/rtc_json-VERSION.cdx.json
	@packaging/sbom.sh dist
