{{- /* The operator's settings. */ -}}
{{- define "dram.operatorEnv" -}}
{{- $storage := include "dram.storage" . }}
{{- $releases := include "dram.releases" . | fromJson }}
- {name: DRAM_IMAGE, value: {{ include "dram.image" (dict "root" . "image" .Values.worker.image) | quote }}}
- {name: DRAM_CUDA_IMAGE, value: {{ include "dram.image" (dict "root" . "image" .Values.worker.cudaImage) | quote }}}
- {name: DRAM_IMAGE_PULL_POLICY, value: {{ .Values.worker.image.pullPolicy }}}
- {name: DRAM_LEASE_NAMESPACE, value: {{ .Release.Namespace }}}
- {name: DRAM_LEASE_NAME, value: {{ include "dram.name" . }}}
- {name: DRAM_LEASE_SECONDS, value: {{ .Values.leaseSeconds | quote }}}
- {name: DRAM_WORKERS, value: {{ .Values.reconcilers | quote }}}
- {name: DRAM_LOG_LEVEL, value: {{ .Values.logLevel }}}
- {name: DRAM_PROGRESS_URL, value: "https://{{ include "dram.host" . }}:8443"}
- {name: DRAM_PROGRESS_CERTIFICATE, value: /etc/dram/tls/tls.crt}
- {name: DRAM_PROGRESS_KEY, value: /etc/dram/tls/tls.key}
- {name: DRAM_PROGRESS_CA, value: /etc/dram/tls/ca.crt}
{{- with .Values.worker.resources }}
- {name: DRAM_WORKER_RESOURCES, value: {{ toJson . | quote }}}
{{- end }}
{{- with .Values.namespaces }}
- {name: DRAM_NAMESPACES, value: {{ join "," . | quote }}}
{{- end }}
{{- if ne $storage "{}" }}
- {name: DRAM_STORAGE, value: {{ $storage | quote }}}
{{- end }}
{{- with .Values.imagePullSecrets }}
{{- $names := list }}
{{- range . }}{{ $names = append $names .name }}{{ end }}
- {name: DRAM_IMAGE_PULL_SECRETS, value: {{ join "," $names | quote }}}
{{- end }}
{{- if $releases.uri }}
- {name: DRAM_RELEASES_URI, value: {{ $releases.uri | quote }}}
{{- with $releases.endpoint }}
- {name: DRAM_RELEASES_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- with $releases.region }}
- {name: DRAM_RELEASES_REGION, value: {{ . | quote }}}
{{- end }}
{{- if $releases.ca.secret }}
- {name: DRAM_RELEASES_CA, value: /etc/dram/rollouts/releases-ca.crt}
{{- end }}
{{- with $releases.credentialsSecret }}
{{- $secret := . }}
{{- range $name := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" "AWS_SESSION_TOKEN" }}
- name: DRAM_RELEASES_{{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ $name }}, optional: {{ eq $name "AWS_SESSION_TOKEN" }}}}
{{- end }}
{{- end }}
- {name: DRAM_RELEASES_ROOT, value: {{ ternary "/etc/dram/tryout/root.json" "/etc/dram/rollouts/root.json" (eq (include "dram.triesReleases" .) "true") }}}
- {name: DRAM_RELEASES_OPERATOR_KEY, value: /etc/dram/rollouts/operator.pem}
{{- if $releases.releaseKey.secret }}
- {name: DRAM_RELEASES_RELEASE_KEY, value: /etc/dram/rollouts/release.pem}
{{- end }}
- {name: DRAM_PROMETHEUS, value: {{ include "dram.prometheus" . | quote }}}
{{- range $name, $value := .Values.delivery }}
- {name: DRAM_DELIVERY_{{ snakecase $name | upper }}, value: {{ $value | quote }}}
{{- end }}
- {name: DRAM_FROZEN, value: /etc/dram/switch/frozen}
- {name: DRAM_COMMANDS_VOUCHED, value: {{ include "dram.vouched" . | quote }}}
{{- end }}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- with .Values.env }}{{ toYaml . | nindent 0 }}{{ end }}
{{- end }}
