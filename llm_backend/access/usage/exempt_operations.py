"""Operations that call no model, each with the reason why it is neither metered nor limited.

Administration and open operations are not listed: the OpenAPI document marks them.
"""

from collections.abc import Mapping

__all__ = ["EXEMPT"]

_LOOKS = "It looks at what there is."
_KEEPS = "It keeps, changes or removes what a client has; nothing is computed of it."
_ENDS = "It ends or interrupts work, or lets work go on that was counted when it began."
_LATER = "Its work is counted when it is done, for the project that asked for it."
_SHOWS = "It shows what a model here would read; the model must be one that the project may use."
_TELLS = "It tells of this server itself."

_BY_REASON: Mapping[str, tuple[str, ...]] = {
    _LOOKS: (
        "listAssistants", "getAssistant", "getThread", "listMessages", "getMessage", "listRuns",
        "getRun", "listRunSteps", "getRunStep", "listVoiceConsents", "getVoiceConsent",
        "listBatches", "retrieveBatch", "listChatCompletions", "getChatCompletion",
        "getChatCompletionMessages", "ListContainers", "RetrieveContainer", "ListContainerFiles",
        "RetrieveContainerFile", "RetrieveContainerFileContent", "listConversationItems",
        "getConversationItem", "getConversation", "listEvals", "getEval", "getEvalRuns",
        "getEvalRun", "getEvalRunOutputItems", "getEvalRunOutputItem", "listFiles",
        "retrieveFile", "downloadFile", "listPaginatedFineTuningJobs", "retrieveFineTuningJob",
        "listFineTuningCheckpointPermissions",
        "listFineTuningJobCheckpoints", "listFineTuningEvents", "listModels", "postModels",
        "retrieveModel", "getResponse", "listInputItems", "listVectorStores", "getVectorStore",
        "getVectorStoreFileBatch", "listFilesInVectorStoreBatch", "listVectorStoreFiles",
        "getVectorStoreFile", "retrieveVectorStoreFileContent", "ListVideos",
        "GetVideoCharacter", "GetVideo", "RetrieveVideoContent", "ListSkills", "GetSkill",
        "GetSkillContent", "ListSkillVersions", "GetSkillVersion", "GetSkillVersionContent",
        "ListThreadItemsMethod", "GetThreadMethod", "ListThreadsMethod",
    ),
    _KEEPS: (
        "deleteAssistant", "createThread", "modifyThread", "deleteThread", "createMessage",
        "modifyMessage", "deleteMessage", "modifyRun", "updateVoiceConsent", "deleteVoiceConsent",
        "updateChatCompletion", "deleteChatCompletion", "DeleteContainer", "CreateContainerFile",
        "DeleteContainerFile", "createConversationItems", "deleteConversationItem",
        "createConversation", "deleteConversation", "updateConversation", "updateEval",
        "deleteEval", "deleteEvalRun", "createFile", "deleteFile", "deleteResponse",
        "createUpload", "cancelUpload", "completeUpload", "addUploadPart", "modifyVectorStore",
        "deleteVectorStore", "deleteVectorStoreFile", "updateVectorStoreFileAttributes",
        "DeleteVideo", "CreateSkill", "DeleteSkill", "UpdateSkillDefaultVersion",
        "CreateSkillVersion", "DeleteSkillVersion", "DeleteThreadMethod",
    ),
    _ENDS: (
        "cancelRun", "cancelBatch", "cancelEvalRun", "cancelFineTuningJob", "pauseFineTuningJob",
        "resumeFineTuningJob", "cancelResponse", "cancelVectorStoreFileBatch",
        "hangup-realtime-call", "refer-realtime-call", "reject-realtime-call",
        "CancelChatSessionMethod",
    ),
    _LATER: (
        "createBatch",  # each line passes admission control
        "createVectorStore", "createVectorStoreFile", "createVectorStoreFileBatch",  # embeddings
    ),
    _SHOWS: ("tokenize", "detokenize", "renderChatPrompt", "createChunks"),
    _TELLS: ("getInfo", "listOperations", "getStatus", "listErrors"),
}  # fmt: skip

EXEMPT: Mapping[str, str] = {
    operation_id: reason for reason, names in _BY_REASON.items() for operation_id in names
}
"""Reasons by operationId."""
