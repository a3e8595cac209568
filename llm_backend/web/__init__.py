"""Web pages: the chat page at `/` and Swagger UI at `/docs`, served from local files.

pages.py    the ASGI middleware that serves the files of `static/`
bundles.py  scripts of the page, each with the modules that it imports

`static/` has `index.html` and `style.css` of the chat page, `docs.html` and `docs.css` of Swagger
UI, `languages/` with a dictionary for each language, `vendor/` with libraries, and these modules:

start.js            the first requests, the API key
storage.js          values of this browser
app.js              builds the parts of the chat page and wires keyboard and buttons
router.js           addresses, the history, and the pages beside the chat
chat_view.js        the open chat: messages, title, greeting, send button
chat_opener.js      opens new, stored, running and imported chats
answers.js          questions sent, answers stopped, continued, generated again
left_chats.js       chats that were left while the page has work for them
answer_stream.js    an answer drawn while it grows
answer_failures.js  silence, errors and empty answers, with the buttons that help
error_report.js     errors in the notice
notice.js           a message above a field, or below an answer
transcript.js       messages of a conversation, and an answer in progress
throttled_renderer.js  draws something that grows, at intervals
question.js         a user's message and its editor
conversation.js     a conversation, and its storage on the server
branches.js         branches of a conversation
messages.js         messages as shown, as requested and as stored
detached.js         answers that continue after the page is left
turn.js             one answer in progress: stopped, left, or timed out
chats.js            stored chats in the sidebar
titles.js           titles that chats got while they were answered
search.js           the search field over them
selection.js        several of them selected, to be saved or deleted
options.js          model, system prompt, key
parameters.js       temperature and other parameters
attachments.js      files of a conversation, in a vector store
enclosures.js       what goes with the next message
images.js           its images
drawn_images.js     images as answers of models that draw
documents.js        its texts and PDFs, for models of upstreams
voice.js            answers read aloud, messages dictated
prompts.js          named texts of the user, inserted by `/name`
tools.js            tools of the server and of MCP servers, called with the user's approval
transfer.js         chats saved to files and opened from them
compare.js          page: two models side by side
status.js           page: live status of the models
downloads.js        downloads of models
operations.js       page: operations of the document
administration.js   page: keys, usage, audit log
limits.js           limits of a project on it
projects.js         projects on it
plot.js             charts of these pages
tables.js           their tables
api.js              HTTP client: JSON and event streams
connection.js       watch of a lost connection
dom.js              elements, icons, text fields
sidebar.js          the sidebar
theme.js            light and dark mode
copy_button.js      a button that copies a text
confirm.js          confirmation dialog
language.js         texts in the user's language
markdown.js         Markdown
code.js             syntax highlighting
math.js             formulas
diagrams.js         diagrams in texts, drawn in a frame
diagrams_frame.js   the script of that frame, behind Mermaid's
install.js          registration of the service worker
worker.js           the service worker
docs.js             Swagger UI
"""

from llm_backend.web.pages import PAGES, WebPages

__all__ = ["PAGES", "WebPages"]
