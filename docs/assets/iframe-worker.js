// Search without a server: browsers start no worker of a page that was opened as a file. This gives
// Material's search a hidden frame in its place, and nothing on pages that a server sends.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(address) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      this.frame = frame
      this.onmessage = null
      window.addEventListener("message", (event) => {
        if (event.source !== frame.contentWindow) return
        const message = new MessageEvent("message", { data: event.data })
        this.dispatchEvent(message)
        if (this.onmessage) this.onmessage(message)
      })
      const page = frame.contentWindow.document
      page.open()
      page.write(`<html><body><script>
        window.postMessage = (data) => parent.postMessage(data, "*")
        window.importScripts = (...addresses) => addresses.reduce(
          (before, address) => before.then(() => new Promise((done) => {
            const script = document.createElement("script")
            script.src = address
            script.onload = done
            document.body.appendChild(script)
          })), Promise.resolve())
        <\/script><script src="${address}"><\/script></body></html>`)
      page.close()
    }
    postMessage(data) {
      const send = () => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
      if (this.frame.contentDocument.readyState === "complete") send()
      else this.frame.contentWindow.addEventListener("load", send)
    }
  }
  window.Worker = window.IFrameWorker
}
