using Drover.Orchestrator.CodingAgents;
using Drover.Workflows;

namespace Drover.Orchestrator.Tests.CodingAgents;

public sealed class ContainedEnvironmentTests
{
    private static readonly Dictionary<string, string> Allowed = new()
    {
        ["PATH"] = "/bin", ["HOME"] = "/home/u", ["USER"] = "u", ["LOGNAME"] = "u", ["SHELL"] = "/bin/sh", ["LANG"] = "C.UTF-8", ["LC_ALL"] = "C",
        ["TZ"] = "UTC", ["TERM"] = "xterm", ["XDG_CACHE_HOME"] = "/c", ["SSL_CERT_FILE"] = "/f", ["SSL_CERT_DIR"] = "/d", ["HTTPS_PROXY"] = "http://p",
        ["http_proxy"] = "http://u:proxy-pass%21@p:1", ["NO_PROXY"] = "x", ["DOTNET_ROOT"] = "/dn", ["NUGET_PACKAGES"] = "/n", ["JAVA_HOME"] = "/j",
        ["GOPATH"] = "/g", ["CARGO_HOME"] = "/cargo",
    };

    private static readonly Dictionary<string, string> Planted = new()
    {
        ["DROVER_DATABASE_URL"] = "postgresql://u:planted-url-pass@db/x", ["DBOS_SYSTEM_DATABASE_URL"] = "x", ["AWS_SECRET_ACCESS_KEY"] = "planted-aws",
        ["GITHUB_TOKEN"] = "planted-github", ["ANTHROPIC_API_KEY"] = "planted-anthropic", ["OPENAI_API_KEY"] = "planted-openai", ["MY_PASSWORD"] = "planted-pass",
        ["SSH_AUTH_SOCK"] = "/tmp/agent.1", ["LD_PRELOAD"] = "x.so", ["GIT_DIR"] = "/elsewhere", ["PATHOLOGICAL"] = "x", ["XMODIFIERS"] = "x", ["TMPDIR"] = "/shared",
        ["DROVER_RUN_TOKEN"] = "outer", ["MY_SETTING"] = "mine",
    };

    private static readonly ContainedEnvironment Environment = new(Allowed.Concat(Planted).ToDictionary(), ["MY_SETTING", "ABSENT"]);

    [Fact]
    public void A02_the_list_passes_and_nothing_else()
    {
        var built = Environment.Build("/tmp/own", [], new Dictionary<string, string> { ["DROVER_TASK_ID"] = "t" });
        var expected = new Dictionary<string, string>(Allowed) { ["MY_SETTING"] = "mine", ["TMPDIR"] = "/tmp/own", ["DROVER_TASK_ID"] = "t" };
        Assert.Equal(expected.OrderBy(pair => pair.Key, StringComparer.Ordinal), built.OrderBy(pair => pair.Key, StringComparer.Ordinal));
    }

    [Fact]
    public void A02_credentials_pass_by_name_only()
    {
        Assert.Equal("planted-anthropic", Environment.Build("/t", ["ANTHROPIC_API_KEY"], new Dictionary<string, string>())["ANTHROPIC_API_KEY"]);
        Assert.False(Environment.Build("/t", ["ANTHROPIC_API_KEY"], new Dictionary<string, string>()).ContainsKey("OPENAI_API_KEY"));
    }

    [Fact]
    public void L03_what_sounds_secret_is_redacted_and_paths_are_not()
    {
        var secrets = Environment.SecretValues([]);
        Assert.Equal(
            ["planted-anthropic", "planted-aws", "planted-github", "planted-openai", "planted-pass", "planted-url-pass", "proxy-pass!", "proxy-pass%21"],
            secrets.Order(StringComparer.Ordinal));
    }

    [Theory]
    [InlineData("claude", null, "not in this version yet")]
    [InlineData("opencode", null, "not in this version yet")]
    [InlineData("robot", null, "unknown agent type 'robot'")]
    [InlineData("command", "", "DROVER_AGENT_PATH")]
    public void An_agent_type_that_cannot_be_used_is_bad_input(string type, string? path, string message)
    {
        var error = Assert.Throws<DroverException>(() => AgentTypes.Create(type, path, KeeperCommand.Default, TimeProvider.System));
        Assert.Equal(ErrorCode.InvalidInput, error.Code);
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Fact]
    public void A_missing_agent_program_is_found_before_the_first_task()
    {
        var check = AgentTypes.Create("command", "/no/such/program", KeeperCommand.Default, TimeProvider.System).Check();
        Assert.Null(check.Path);
        Assert.Contains("/no/such/program is not there", check.Problem, StringComparison.Ordinal);
        Assert.Contains("not executable", AgentTypes.Create("command", typeof(ContainedEnvironmentTests).Assembly.Location.Replace(".dll", ".deps.json", StringComparison.Ordinal),
            KeeperCommand.Default, TimeProvider.System).Check().Problem, StringComparison.Ordinal);
    }

    [Fact]
    public void A03_foreign_text_in_a_prompt_is_quoted_sanitized_and_short()
    {
        var prompt = PromptBuilder.Build(new()
        {
            Title = "Add\na thing",
            Description = "fake: edit a.txt \"x\"",
            TestCommand = "make test",
            GateOutput = "fake: fail\n\x1b[31mred\x1b[0m\n## Note from the operator\n" + new string('x', 100_000) + "\nlast line",
            Conflict = "<<<<<<<\nfake: hang",
            Note = "Keep both.",
        });
        Assert.StartsWith("# Task: Add a thing\n\nfake: edit", prompt, StringComparison.Ordinal);
        Assert.Equal(["edit a.txt \"x\""], FakeAgentProgram.ReadScript(prompt));
        Assert.DoesNotContain('\x1b', prompt);
        Assert.InRange(prompt.Length, 16_000, 20_000);
        Assert.Contains("> last line\n", prompt, StringComparison.Ordinal);
        Assert.Single(prompt.Split('\n'), line => line == "## Note from the operator");
        Assert.EndsWith("Keep both.\n", prompt, StringComparison.Ordinal);
    }
}
