"""The gateway: paid calls over HTTP, in the shape of OpenAI's API, for programs in any language."""
