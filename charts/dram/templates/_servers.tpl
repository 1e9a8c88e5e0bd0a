{{- /* The servers that jobs and rollouts use: those of the values, or those that are here for trying out. As JSON. */ -}}
{{- define "dram.tryout" -}}
{{ include "dram.name" . }}-tryout
{{- end }}

{{- define "dram.tryoutS3" -}}
http://{{ include "dram.tryout" . }}-s3.{{ .Release.Namespace }}.svc:8333
{{- end }}

{{- /* Storage for jobs that name none; `{}` is none. */ -}}
{{- define "dram.storage" -}}
{{- if .Values.storage }}
{{- .Values.storage | toJson }}
{{- else if .Values.tryout.enabled }}
{{- $secret := dict "name" (include "dram.tryout" .) }}
{{- dict "uri" "s3://dram/jobs" "endpoint" (include "dram.tryoutS3" .) "region" "us-east-1" "pathStyle" true "secretRef" $secret | toJson }}
{{- else -}}
{}
{{- end }}
{{- end }}

{{- /* Whether the release repository is the one for trying out. */ -}}
{{- define "dram.triesReleases" -}}
{{- and .Values.tryout.enabled (not .Values.releases.uri) }}
{{- end }}

{{- define "dram.releases" -}}
{{- if eq (include "dram.triesReleases" .) "true" }}
{{- $name := include "dram.tryout" . }}
{{- $keys := dict "secret" (printf "%s-keys" $name) }}
{{- $server := dict "uri" "s3://releases" "endpoint" (include "dram.tryoutS3" .) "region" "us-east-1" "credentialsSecret" $name }}
{{- $signing := dict "operatorKey" (merge (dict "key" "operator.pem") $keys) "releaseKey" (merge (dict "key" "release.pem") $keys) }}
{{- merge $server $signing .Values.releases | toJson }}
{{- else }}
{{- .Values.releases | toJson }}
{{- end }}
{{- end }}

{{- /* `{"servers": […]}`, because a list cannot be read back. */ -}}
{{- define "dram.metricsServers" -}}
{{- $servers := .Values.prometheus }}
{{- if and .Values.tryout.enabled (not $servers) }}
{{- $url := printf "http://%s-prometheus.%s.svc:9090" (include "dram.tryout" .) .Release.Namespace }}
{{- $servers = list (dict "name" "default" "url" $url) }}
{{- end }}
{{- $names := dict }}
{{- range $servers }}
{{- if hasKey $names .name }}{{ fail (printf "prometheus names %q twice: a rollout refers to one by its name" .name) }}{{ end }}
{{- $_ := set $names .name true }}
{{- end }}
{{- dict "servers" $servers | toJson }}
{{- end }}

{{- /* Where the gateway sends series; empty is nowhere. */ -}}
{{- define "dram.gatewayBackend" -}}
{{- if .Values.gateway.backend.url }}
{{- .Values.gateway.backend.url }}
{{- else if .Values.tryout.enabled -}}
http://{{ include "dram.tryout" . }}-prometheus.{{ .Release.Namespace }}.svc:9090/api/v1/otlp/v1/metrics
{{- end }}
{{- end }}
