"""A headless Chromium that tries a page, where there is one."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["CHROME", "findings"]

_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROME = os.environ.get("LSGM_CHROME") or next(
    (path for name in _NAMES if (path := shutil.which(name))), None
)

_ERRORS = """<script id="errors">
window.faults = [];
addEventListener("error", (event) => window.faults.push(event.message));
addEventListener("unhandledrejection", (event) => window.faults.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => window.faults.push("refused: " + event.blockedURI));
for (const name of ["error", "warn"]) console[name] = (...words) => window.faults.push(words.join(" "));
</script>"""
_PROBE = Path(__file__).with_name("probe.js")
_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--virtual-time-budget=10000"),
)


def findings(page: str, folder: Path, width: int) -> dict[str, Any]:
    """Return what a reader with a window so wide finds on a page; files go into the folder.

    The page stands in a frame, since a window has a least width of its own.
    """
    tried = page.replace("<head>", f"<head>{_ERRORS}", 1)
    tried = tried.replace("</body>", f"<script>{_PROBE.read_text(encoding='utf-8')}</script></body>")
    size = f"border:0;width:{width}px;height:800px"
    frame = f'<iframe id="frame" style="{size}" srcdoc="{html.escape(tried)}"></iframe>'
    script = """<script>
    const look = setInterval(() => {
      const found = frame.contentDocument && frame.contentDocument.getElementById("findings");
      if (!found) return;
      clearInterval(look);
      const out = document.body.appendChild(document.createElement("pre"));
      out.id = "findings";
      out.textContent = found.textContent;
    }, 50);
    </script>"""
    file = folder / "tried.html"
    file.write_text(f'<!DOCTYPE html><meta charset="utf-8"><body>{frame}{script}</body>', encoding="utf-8")
    command = [
        str(CHROME),
        *_QUIET,
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1400,900",
        "--dump-dom",
    ]
    done = subprocess.run([*command, file.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="findings">(.*?)</pre>', done.stdout, flags=re.S)
    assert found, f"the page said nothing: {done.stderr[-2000:]}"
    return dict(json.loads(html.unescape(found[1])))
