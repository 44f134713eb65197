// Search in a site that is opened from a folder. Browsers start no worker from a file: URL, so there a hidden frame does
// the worker's part: its script sees `postMessage`, `importScripts` and messages as in a worker. Elsewhere nothing
// changes. The name of this file tells Material's plugin `offline` not to load another such script from the network.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.appendChild(this.frame)
      const inside = this.frame.contentWindow
      this.heard = event => {
        if (event.source === inside) this.dispatchEvent(new MessageEvent("message", { data: event.data }))
      }
      window.addEventListener("message", this.heard)
      inside.postMessage = data => window.dispatchEvent(new MessageEvent("message", { data, source: inside }))
      inside.importScripts = async (...scripts) => {
        for (const script of scripts) await load(inside.document, script)
      }
      this.ready = load(inside.document, url)
    }

    postMessage(data) {
      this.ready.then(() => {
        const event = new MessageEvent("message", { data: structuredClone(data) })
        this.frame.contentWindow.dispatchEvent(event)
      })
    }

    terminate() {
      window.removeEventListener("message", this.heard)
      this.frame.remove()
    }
  }

  function load(page, url) {
    return new Promise((done, failed) => {
      const script = page.createElement("script")
      script.src = url
      script.onload = done
      script.onerror = () => failed(new Error(`${url} cannot be loaded`))
      page.body.appendChild(script)
    })
  }
}
