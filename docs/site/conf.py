"""Sphinx's settings for the site. Nothing is fetched, neither to build it nor to read it."""

project = "Dram"
html_title = "Dram"
extensions = ["myst_parser", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
highlight_language = "text"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["dram.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#8a4b08", "color-brand-content": "#8a4b08"},
    "dark_css_variables": {"color-brand-primary": "#e8a55c", "color-brand-content": "#e8a55c"},
}
