"""Operations that are not metered or limited themselves, each with its reason.

Administration and open operations are not listed: the OpenAPI document marks them.
"""

from collections.abc import Mapping

_READS = "It reads stored objects."
_STORES = "It stores, changes or deletes objects of a client; nothing is computed."
_CONTROLS = "It ends, pauses or resumes work that was counted when it began."
_DEFERS = "Its work is counted when it is done, for the project that asked for it."
_RENDERS = "It renders or tokenizes input of a local model that the project may use."
_FORWARDS = "The requests that it makes are counted themselves."
_DESCRIBES = "It describes this server."

_BY_REASON: Mapping[str, tuple[str, ...]] = {
    _READS: (
        "listAssistants", "getAssistant", "getThread", "listMessages", "getMessage", "listRuns",
        "getRun", "listRunSteps", "getRunStep", "listVoiceConsents", "getVoiceConsent",
        "listBatches", "retrieveBatch", "listChatCompletions", "getChatCompletion",
        "getChatCompletionMessages", "searchChatCompletions", "listDetachedChats",
        "followDetachedChat",
        "ListContainers", "RetrieveContainer", "ListContainerFiles",
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
        "listAgents", "retrieveAgent", "listAgentAutomations", "retrieveAgentAutomation",
        "listAgentAutomationInvocations", "retrieveAgentAutomationInvocation",
        "listAgentEnvironments", "retrieveAgentEnvironment", "listAgentEnvironmentFiles",
        "listAgentEnvironmentTemplates", "retrieveAgentEnvironmentTemplate", "listAgentSessions",
        "retrieveAgentSession", "listAgentSessionArtifacts", "retrieveAgentSessionArtifact",
        "getAgentSessionArtifactContent", "streamAgentSessionEvents", "listAgentSessionItems",
        "listAgentSessionSubagents", "retrieveAgentSessionSubagent",
        "listAgentSessionSubagentItems", "listAgentSessionSubagentTurns",
        "retrieveAgentSessionSubagentTurn", "listAgentSessionSubagentTurnItems",
        "listAgentSessionTraces", "listAgentSessionTurns", "retrieveAgentSessionTurn",
        "listAgentSessionTurnItems", "downloadLiveSessionRecording",
        "listVaults", "retrieveVault", "listVaultCredentials",
        "retrieveVaultCredential", "listWebhookEndpoints", "retrieveWebhookEndpoint",
        "listWebhookEventTypes", "listWebhookEndpointFailures",
    ),
    _STORES: (
        "deleteAssistant", "createThread", "modifyThread", "deleteThread", "createMessage",
        "modifyMessage", "deleteMessage", "modifyRun", "updateVoiceConsent", "deleteVoiceConsent",
        "updateChatCompletion", "deleteChatCompletion", "storeChatCompletion", "DeleteContainer",
        "CreateContainerFile", "DeleteContainerFile", "createConversationItems",
        "deleteConversationItem", "createConversation", "deleteConversation",
        "updateConversation", "updateEval", "deleteEval", "deleteEvalRun", "createFile",
        "deleteFile", "deleteResponse",
        "createUpload", "cancelUpload", "completeUpload", "addUploadPart", "modifyVectorStore",
        "deleteVectorStore", "deleteVectorStoreFile", "updateVectorStoreFileAttributes",
        "DeleteVideo", "CreateSkill", "DeleteSkill", "UpdateSkillDefaultVersion",
        "CreateSkillVersion", "DeleteSkillVersion", "DeleteThreadMethod",
        "deleteAgent", "deleteAgentAutomation", "createAgentEnvironmentTemplate",
        "updateAgentEnvironmentTemplate", "deleteAgentEnvironmentTemplate",
        "createAgentEnvironmentFile", "deleteAgentSession", "deleteAgentSessionArtifact",
        "deleteAudioVoice", "createVault", "updateVault", "deleteVault", "createVaultCredential",
        "updateVaultCredential", "deleteVaultCredential", "createWebhookEndpoint",
        "updateWebhookEndpoint", "deleteWebhookEndpoint", "rotateWebhookEndpointSecret",
    ),
    _CONTROLS: (
        "cancelRun", "cancelBatch", "cancelEvalRun", "cancelFineTuningJob", "pauseFineTuningJob",
        "resumeFineTuningJob", "cancelResponse", "cancelVectorStoreFileBatch",
        "hangup-realtime-call", "refer-realtime-call", "reject-realtime-call",
        "CancelChatSessionMethod", "pauseAgentAutomation", "postEvalsEvalIdRunsRunIdCancel",
        "hangupLiveSession", "referLiveSession", "rejectLiveSession", "cancelDetachedChat",
    ),
    _DEFERS: (
        "createBatch",  # each line passes admission control
        "createVectorStore", "createVectorStoreFile", "createVectorStoreFileBatch",  # embeddings
    ),
    _RENDERS: ("tokenize", "countPromptTokens", "detokenize", "renderChatPrompt", "createChunks"),
    _FORWARDS: ("sendMcpMessage",),
    _DESCRIBES: (
        "getInfo", "listOperations", "getStatus", "listErrors", "getOllamaVersion",
        "listOllamaModels", "listLoadedOllamaModels", "showOllamaModel", "listAudioVoices",
    ),
}  # fmt: skip

EXEMPT: Mapping[str, str] = {
    operation_id: reason for reason, names in _BY_REASON.items() for operation_id in names
}
"""Reasons by operationId."""
