using Drover.Orchestrator.Settings;
using Drover.TestKit;
using Drover.Workflows;

namespace Drover.Orchestrator.Tests.Settings;

[System.Runtime.Versioning.SupportedOSPlatform("linux")]
public sealed class ProjectSettingsTests : IDisposable
{
    private static readonly Dictionary<string, string?> None = [];
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    private string Root => _folder.Path;

    private string FilePath => Path.Combine(Root, ProjectSettings.FileName);

    private void Write(string text)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(FilePath)!);
        File.WriteAllText(FilePath, text);
    }

    [Fact]
    public void C06_the_file_is_private_whole_and_written_the_same_again()
    {
        string project = ProjectSettings.Create(Root, new Dictionary<string, string> { ["target"] = "trunk", ["testCommand"] = "dotnet test" });
        Assert.Equal(project, ProjectSettings.Create(Root, new Dictionary<string, string> { ["target"] = "other" }));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(FilePath));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute, File.GetUnixFileMode(Path.GetDirectoryName(FilePath)!));
        ProjectSettings settings = ProjectSettings.Load(Root, None);
        Assert.Equal((project, "trunk", "dotnet test", 3, 3), (settings.Project, settings.Target, settings.TestCommand, settings.Workers, settings.MaxAttempts));
        string before = File.ReadAllText(FilePath);
        ProjectSettings.Set(Root, "timeouts.gate", "90m");
        ProjectSettings.Set(Root, "worktree.copy", ".env, local/config");
        Assert.Equal((TimeSpan.FromMinutes(90), 2), (ProjectSettings.Load(Root, None).GateTimeout, ProjectSettings.Load(Root, None).WorktreeCopy.Count));
        Assert.True(ProjectSettings.Unset(Root, "timeouts.gate"));
        Assert.True(ProjectSettings.Unset(Root, "worktree.copy"));
        Assert.False(ProjectSettings.Unset(Root, "worktree.copy"));
        Assert.Equal(before, File.ReadAllText(FilePath));
        Assert.Single(Directory.GetFiles(Path.GetDirectoryName(FilePath)!));
    }

    /// <summary>Every setting can be given everywhere it says, and flag beats environment beats file beats default.</summary>
    [Fact]
    public void Every_setting_follows_the_order_flag_environment_file_default()
    {
        ProjectSettings.Create(Root, new Dictionary<string, string>());
        foreach (Setting setting in SettingCatalog.All)
        {
            string[] values = setting.Kind switch
            {
                SettingKind.Number => ["7", "8", "9"],
                SettingKind.Time => ["7s", "8s", "9s"],
                SettingKind.Word => ["codex", "command", "fake"],
                _ => ["one", "two", "three"],
            };
            (string?, string) Now(Dictionary<string, string?> environment, Dictionary<string, string?>? flags = null) =>
                ProjectSettings.Load(Root, environment, flags).Show().Single(s => s.Key == setting.Key) is var s ? (s.Value, s.Source) : default;

            Assert.Equal((setting.Default, setting.Default is null ? "not set" : "default"), Now(None));
            if (setting.InFile)
            {
                ProjectSettings.Set(Root, setting.Key, values[0]);
                Assert.Equal((values[0], ProjectSettings.FileName), Now(None));
            }
            if (setting.Variable is { } variable)
            {
                Assert.Equal((values[1], variable), Now(new() { [variable] = values[1] }));
                Assert.NotEqual(variable, Now(new() { [variable] = "" }).Item2);
            }
            if (setting.Flag is { } flag)
            {
                Dictionary<string, string?> environment = setting.Variable is { } v ? new() { [v] = values[1] } : None;
                Assert.Equal((values[2], flag), Now(environment, new() { [flag] = values[2] }));
            }
        }
    }

    [Theory]
    [InlineData("{\"project\":\"11111111-2222-4333-8444-555555555555\",\"wrokers\":3}", "did you mean workers?")]
    [InlineData("{\"project\":\"11111111-2222-4333-8444-555555555555\",\"timeouts\":{\"tusk\":\"1m\"}}", "did you mean timeouts.task?")]
    [InlineData("{\"project\":\"11111111-2222-4333-8444-555555555555\",\"workers\":0}", "workers: '0' is not a whole number from 1 to 256")]
    [InlineData("{\"project\":\"11111111-2222-4333-8444-555555555555\",\"workers\":\"3\"}", "'workers' must be a number")]
    [InlineData("{\"project\":\"11111111-2222-4333-8444-555555555555\",\"timeouts\":{\"task\":\"soon\"}}", "timeouts.task: 'soon' is not a duration")]
    [InlineData("{\"project\":\"11111111-2222-4333-8444-555555555555\",\"agent\":{\"type\":\"cluade\"}}", "agent.type: 'cluade' is not one of")]
    [InlineData("{\"project\":\"11111111-2222-4333-8444-555555555555\",\"worktree\":{\"copy\":[\"../secret\"]}}", "is not a path inside the repository")]
    [InlineData("{\"project\":\"11111111-2222-4333-8444-555555555555\",\"worktree\":{\"copy\":[\"/etc/passwd\"]}}", "is not a path inside the repository")]
    [InlineData("{\"project\":\"11111111-2222-4333-8444-555555555555\",\"env\":{\"pass\":[\"A B\"]}}", "is not the name of an environment variable")]
    [InlineData("{\"project\":\"11111111-2222-4333-8444-555555555555\",\"workers\":3,\"workers\":4}", "is not valid JSON")]
    [InlineData("{\"project\":\"mine\"}", "'project' is not a UUID")]
    [InlineData("{}", "has no 'project'")]
    [InlineData("{\"project\":\"11111111-2222", "is not valid JSON (line 1)")]
    [InlineData("[]", "must hold one JSON object")]
    public void An_unknown_key_or_a_bad_value_names_file_key_and_fix(string text, string expected)
    {
        Write(text);
        var error = Assert.Throws<DroverException>(() => ProjectSettings.Load(Root, None));
        Assert.Equal(ErrorCode.InvalidInput, error.Code);
        Assert.StartsWith(ProjectSettings.FileName, error.Message, StringComparison.Ordinal);
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.Equal(text, File.ReadAllText(FilePath));
        Assert.Throws<DroverException>(() => ProjectSettings.Set(Root, "workers", "4"));
        Assert.Equal(text, File.ReadAllText(FilePath));
    }

    [Fact]
    public void Bad_variables_and_flags_are_errors_and_name_themselves()
    {
        ProjectSettings.Create(Root, new Dictionary<string, string>());
        Assert.StartsWith("DROVER_WORKERS: ", Assert.Throws<DroverException>(() => ProjectSettings.Load(Root, new Dictionary<string, string?> { ["DROVER_WORKERS"] = "many" })).Message, StringComparison.Ordinal);
        Assert.StartsWith("--workers: ", Assert.Throws<DroverException>(() => ProjectSettings.Load(Root, None, new Dictionary<string, string?> { ["--workers"] = "0" })).Message, StringComparison.Ordinal);
        Assert.Equal(ErrorCode.InvalidInput, Assert.Throws<DroverException>(() => ProjectSettings.Set(Root, "environment", "x")).Code);
        Assert.Contains("did you mean", Assert.Throws<DroverException>(() => ProjectSettings.Unset(Root, "timeout.task")).Message, StringComparison.Ordinal);
        Directory.Delete(Path.GetDirectoryName(FilePath)!, true);
        Assert.Equal(ErrorCode.NotFound, Assert.Throws<DroverException>(() => ProjectSettings.Load(Root, None)).Code);
    }

    [Theory]
    [InlineData("5s", 5_000, "5s")]
    [InlineData("10m", 600_000, "10m")]
    [InlineData("1h30m", 5_400_000, "1h30m")]
    [InlineData("90m", 5_400_000, "1h30m")]
    [InlineData("250ms", 250, "250ms")]
    [InlineData("2d", 172_800_000, "2d")]
    [InlineData("36h", 129_600_000, "36h")]
    public void Durations(string text, long ms, string canonical)
    {
        Assert.Equal(ms, (long)Duration.Parse(text).TotalMilliseconds);
        Assert.Equal(canonical, Duration.Format(Duration.Parse(text)));
        Assert.Equal(Duration.Parse(text), Duration.Parse(canonical));
    }

    [Theory]
    [InlineData("")]
    [InlineData("5")]
    [InlineData("s")]
    [InlineData("0s")]
    [InlineData("-5s")]
    [InlineData("5 s")]
    [InlineData("5m1h")]
    [InlineData("5s5s")]
    [InlineData("1.5h")]
    [InlineData("5x")]
    [InlineData("99999999999999999999s")]
    [InlineData("400d")]
    [InlineData("٥s")]
    public void Not_durations(string text) => Assert.Equal(ErrorCode.InvalidInput, Assert.Throws<DroverException>(() => Duration.Parse(text)).Code);
}
