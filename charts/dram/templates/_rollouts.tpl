{{- /* "true" where the API server proves who gave a command: the policy's API is there from Kubernetes 1.30 on. */ -}}
{{- define "dram.vouched" -}}
{{- and .Values.commandPolicy (semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version) -}}
{{- end }}

{{- define "dram.switch" -}}
{{ include "dram.name" . }}-switch
{{- end }}

{{- /* One file of a Secret, as part of a projected volume. */ -}}
{{- define "dram.secretFile" -}}
- secret:
    name: {{ .from.secret }}
    items: [{key: {{ .from.key }}, path: {{ .path }}}]
{{- end }}

{{- /* Every file that serving rollouts needs, as sources of one projected volume: /etc/dram/rollouts. */ -}}
{{- define "dram.rolloutFiles" -}}
{{- $releases := include "dram.releases" . | fromJson }}
{{- $_ := required "releases.operatorKey.secret is needed with releases.uri: the Secret that holds operator.pem" $releases.operatorKey.secret }}
{{- if ne (include "dram.triesReleases" .) "true" }}
- configMap: {name: {{ include "dram.name" . }}-releases}
{{- end }}
{{ include "dram.secretFile" (dict "from" $releases.operatorKey "path" "operator.pem") }}
{{- if $releases.releaseKey.secret }}
{{ include "dram.secretFile" (dict "from" $releases.releaseKey "path" "release.pem") }}
{{- end }}
{{- if $releases.ca.secret }}
{{ include "dram.secretFile" (dict "from" $releases.ca "path" "releases-ca.crt") }}
{{- end }}
{{- range $number, $endpoint := (include "dram.metricsServers" . | fromJson).servers }}
{{- range $kind := list "ca" "clientCertificate" "token" "password" }}
{{- with index $endpoint $kind }}
{{ include "dram.secretFile" (dict "from" . "path" (printf "prometheus-%d/%s" $number $kind)) }}
{{- end }}
{{- end }}
{{- range $header, $from := $endpoint.secretHeaders }}
{{ include "dram.secretFile" (dict "from" $from "path" (printf "prometheus-%d/header-%s" $number $header)) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The metrics servers as the operator reads them; secrets are files, so that they may be renewed. */ -}}
{{- define "dram.prometheus" -}}
{{- $found := list }}
{{- range $number, $given := (include "dram.metricsServers" . | fromJson).servers }}
{{- $folder := printf "/etc/dram/rollouts/prometheus-%d" $number }}
{{- $endpoint := dict "name" $given.name "url" $given.url }}
{{- with $given.ca }}{{ $_ := set $endpoint "caFile" (printf "%s/ca" $folder) }}{{ end }}
{{- with $given.clientCertificate }}{{ $_ := set $endpoint "certificateFile" (printf "%s/clientCertificate" $folder) }}{{ end }}
{{- with $given.token }}{{ $_ := set $endpoint "tokenFile" (printf "%s/token" $folder) }}{{ end }}
{{- with $given.password }}{{ $_ := set $endpoint "passwordFile" (printf "%s/password" $folder) }}{{ end }}
{{- range $name := list "username" "headers" "timeoutSeconds" "largestAnswerBytes" }}
{{- with index $given $name }}{{ $_ := set $endpoint $name . }}{{ end }}
{{- end }}
{{- $files := dict }}
{{- range $header, $_ := $given.secretHeaders }}{{ $_ := set $files $header (printf "%s/header-%s" $folder $header) }}{{ end }}
{{- with $files }}{{ $_ := set $endpoint "headerFiles" . }}{{ end }}
{{- $found = append $found $endpoint }}
{{- end }}
{{- toJson $found }}
{{- end }}
