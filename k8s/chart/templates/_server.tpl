{{/* The name of all objects: `llm-backend` for the release of that name, else RELEASE-llm-backend. */}}
{{- define "llm-backend.name" -}}
{{- if contains "llm-backend" .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-llm-backend" (.Release.Name | trunc 28 | trimSuffix "-") }}
{{- end -}}
{{- end }}

{{/* Whether several servers share their stores: not empty if they do. */}}
{{- define "llm-backend.shared" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) -}}yes{{- end -}}
{{- end }}

{{/* Fails unless several servers have the stores that they share, and the autoscaler a range. */}}
{{- define "llm-backend.check" -}}
{{- $bounds := .Values.autoscaling -}}
{{- if gt (int $bounds.minReplicas) (int $bounds.maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas is %d, above autoscaling.maxReplicas, %d." (int $bounds.minReplicas) (int $bounds.maxReplicas)) -}}
{{- end -}}
{{- if include "llm-backend.shared" . -}}
{{- $settings := include "llm-backend.settings" . | fromYaml -}}
{{- range list "LLM_BACKEND_DATABASE_URL" "LLM_BACKEND_OBJECT_STORE_URL" "LLM_BACKEND_QDRANT_URL" -}}
{{- $url := get $settings . | toString -}}
{{- if or (not $url) (hasPrefix "sqlite:" $url) (hasPrefix "file:" $url) -}}
{{- fail (printf "Several servers need stores that they share: name one in settings.%s; it is %q." . $url) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The settings: those of the base, then the shutdown delay if there are several servers, then the values'. */}}
{{- define "llm-backend.settings" -}}
{{- $settings := dict -}}
{{- $base := .Files.Get "base/kustomization.yaml" | fromYaml -}}
{{- range (first $base.configMapGenerator).literals -}}
{{- $parts := splitn "=" 2 . -}}
{{- $_ := set $settings $parts._0 $parts._1 -}}
{{- end -}}
{{- if include "llm-backend.shared" . -}}
{{- $prod := .Files.Get "prod/kustomization.yaml" | fromYaml -}}
{{- range (first $prod.configMapGenerator).literals -}}
{{- $parts := splitn "=" 2 . -}}
{{- if eq $parts._0 "LLM_BACKEND_SHUTDOWN_DELAY_S" -}}{{- $_ := set $settings $parts._0 $parts._1 -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := .Values.settings -}}
{{- /* Helm reads numbers as floats, of which large ones have the text 6.7108864e+07. */ -}}
{{- if kindIs "float64" $value -}}
{{- if eq $value (floor $value) -}}{{- $value = int64 $value -}}{{- end -}}
{{- end -}}
{{- $_ := set $settings $name (toString $value) -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end }}

{{/* The objects of a file that this release has, with its names, and the values written into them. */}}
{{- define "llm-backend.objects" -}}
{{- $name := include "llm-backend.name" .root }}
{{- $left_out := list "default-deny" "names" "stores" "pull-model" "chatbot-ui" }}
{{- if include "llm-backend.shared" .root }}{{ $left_out = append $left_out (printf "%s-data" $name) }}{{ end }}
{{- range splitList "\n---\n" (.root.Files.Get .file) }}
{{- $object := . | replace "llm-backend" $name | fromYaml }}
{{- if not (has $object.metadata.name $left_out) }}
{{- $_ := set $object.metadata "namespace" $.root.Release.Namespace }}
{{- $edit := printf "llm-backend.edit%s" $object.kind }}
{{- if has $object.kind (list "Deployment" "PersistentVolumeClaim" "HorizontalPodAutoscaler" "ScaledObject" "ServiceMonitor" "PrometheusRule" "NetworkPolicy") }}
{{- include $edit (dict "root" $.root "object" $object) }}
{{- end }}
---
{{ toYaml $object }}
{{- end }}
{{- end }}
{{- end }}

{{- define "llm-backend.editDeployment" -}}
{{- $values := .root.Values -}}
{{- $pod := .object.spec.template.spec -}}
{{- $container := first $pod.containers -}}
{{- $_ := set $container "image" (printf "%s:%s" $values.image.repository ($values.image.tag | default .root.Chart.AppVersion)) -}}
{{- $_ := set $container "imagePullPolicy" $values.image.pullPolicy -}}
{{- if include "llm-backend.shared" .root -}}
{{- include "llm-backend.share" . -}}
{{- end -}}
{{- $settings := include "llm-backend.settings" .root | fromYaml -}}
{{- $delay := get $settings "LLM_BACKEND_SHUTDOWN_DELAY_S" | default "0" | float64 -}}
{{- $grace := get $settings "LLM_BACKEND_SHUTDOWN_GRACE_S" | default "20" | float64 -}}
{{- $stop := addf $delay $grace 10 | ceil | int -}}
{{- $_ := set $pod "terminationGracePeriodSeconds" (max $stop (int $pod.terminationGracePeriodSeconds)) -}}
{{- with $values.env -}}{{- $_ := set $container "env" (concat $container.env .) -}}{{- end -}}
{{- with $values.resources -}}{{- $_ := set $container "resources" . -}}{{- end -}}
{{- with $values.nodeSelector -}}{{- $_ := set $pod "nodeSelector" . -}}{{- end -}}
{{- with $values.tolerations -}}{{- $_ := set $pod "tolerations" . -}}{{- end -}}
{{- with $values.affinity -}}{{- $_ := set $pod "affinity" . -}}{{- end -}}
{{- with $values.image.pullSecrets -}}
{{- $secrets := list -}}
{{- range . -}}{{- $secrets = append $secrets (dict "name" .) -}}{{- end -}}
{{- $_ := set $pod "imagePullSecrets" $secrets -}}
{{- end -}}
{{- $annotations := .object.spec.template.metadata.annotations | default dict -}}
{{- $_ := set $annotations "checksum/settings" (include "llm-backend.settings" .root | sha256sum) -}}
{{- $_ := set .object.spec.template.metadata "annotations" $annotations -}}
{{- end }}

{{/* What k8s/overlays/prod changes in the deployment: its patch, and how servers are replaced. */}}
{{- define "llm-backend.share" -}}
{{- $patch := .root.Files.Get "prod/replicas.yaml" | replace "llm-backend" (include "llm-backend.name" .root) | fromYaml -}}
{{- $settings := include "llm-backend.settings" .root | fromYaml -}}
{{- $pod := .object.spec.template.spec -}}
{{- $container := first $pod.containers -}}
{{- $patched := first $patch.spec.template.spec.containers -}}
{{- if .root.Values.autoscaling.enabled -}}
{{- $_ := unset .object.spec "replicas" -}}
{{- else -}}
{{- $_ := set .object.spec "replicas" (int .root.Values.replicas) -}}
{{- end -}}
{{- $_ := set .object.spec "strategy" (dict "type" "RollingUpdate" "rollingUpdate" (dict "maxUnavailable" 0 "maxSurge" 1)) -}}
{{- $_ := set .object.spec.template.metadata "annotations" $patch.spec.template.metadata.annotations -}}
{{- range list "terminationGracePeriodSeconds" "topologySpreadConstraints" -}}
{{- $_ := set $pod . (get $patch.spec.template.spec .) -}}
{{- end -}}
{{- range $patched.env -}}
{{- if or (not (hasPrefix "AWS_" .name)) (hasPrefix "s3://" $settings.LLM_BACKEND_OBJECT_STORE_URL) -}}
{{- $_ := set $container "env" (append $container.env .) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $container "resources" $patched.resources -}}
{{- range $mount := $container.volumeMounts -}}
{{- range $patched.volumeMounts -}}
{{- if eq .name $mount.name -}}{{- $_ := set $mount "readOnly" .readOnly -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- range $volume := $pod.volumes -}}
{{- range $patch.spec.template.spec.volumes -}}
{{- if eq .name $volume.name -}}
{{- $_ := unset $volume "persistentVolumeClaim" -}}
{{- $_ := set $volume "emptyDir" .emptyDir -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "llm-backend.editPersistentVolumeClaim" -}}
{{- $volume := get .root.Values.storage (last (splitList "-" .object.metadata.name)) -}}
{{- $_ := set .object.spec.resources.requests "storage" $volume.size -}}
{{- with $volume.storageClass -}}{{- $_ := set $.object.spec "storageClassName" . -}}{{- end -}}
{{- if include "llm-backend.shared" .root -}}
{{- $_ := set .object.spec "accessModes" (list "ReadWriteMany") -}}
{{- end -}}
{{- end }}

{{- define "llm-backend.editHorizontalPodAutoscaler" -}}
{{- $_ := set .object.spec "minReplicas" (int .root.Values.autoscaling.minReplicas) -}}
{{- $_ := set .object.spec "maxReplicas" (int .root.Values.autoscaling.maxReplicas) -}}
{{- if eq .root.Values.autoscaling.by "queue" -}}
{{- range .root.Files.Get "components/queue-autoscaler/queue-metric.yaml" | fromYamlArray -}}
{{- $_ := set $.object.spec "metrics" (append $.object.spec.metrics .value) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "llm-backend.editScaledObject" -}}
{{- $_ := set .object.spec "minReplicaCount" (int .root.Values.autoscaling.minReplicas) -}}
{{- $_ := set .object.spec "maxReplicaCount" (int .root.Values.autoscaling.maxReplicas) -}}
{{- $namespace := printf "namespace=%q" .root.Release.Namespace -}}
{{- range .object.spec.triggers -}}
{{- $_ := set .metadata "serverAddress" $.root.Values.autoscaling.prometheus -}}
{{- $_ := set .metadata "query" (regexReplaceAll "namespace=\"[^\"]*\"" .metadata.query $namespace) -}}
{{- end -}}
{{- end }}

{{- define "llm-backend.editServiceMonitor" -}}
{{- $_ := set .object.metadata "labels" (merge .root.Values.serviceMonitor.labels .object.metadata.labels) -}}
{{- end }}

{{- define "llm-backend.editPrometheusRule" -}}
{{- $_ := set .object.metadata "labels" (.object.metadata.labels | default dict | merge .root.Values.prometheusRule.labels) -}}
{{- range .object.spec.groups -}}
{{- range .rules -}}
{{- $_ := set .annotations "runbook_url" (replace "docs/runbook.md" $.root.Values.prometheusRule.runbook .annotations.runbook_url) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* In the overlay another policy lets all pods resolve names (DNS); here it is one of this policy's rules. */}}
{{- define "llm-backend.editNetworkPolicy" -}}
{{- $egress := concat .object.spec.egress .root.Values.networkPolicy.egress -}}
{{- range splitList "\n---\n" (.root.Files.Get "prod/network-policy.yaml") -}}
{{- $policy := fromYaml . -}}
{{- if eq $policy.metadata.name "names" -}}{{- $egress = concat $egress $policy.spec.egress -}}{{- end -}}
{{- end -}}
{{- $_ := set .object.spec "egress" $egress -}}
{{- end }}
