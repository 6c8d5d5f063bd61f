using Drover.Orchestrator.CodingAgents;

namespace Drover.Orchestrator.Tests.CodingAgents;

public sealed class ContainedProcessTests : IDisposable
{
    private readonly ContainedTestFolder folder = new();

    public void Dispose() => folder.Dispose();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Output_of_both_streams_arrives_in_lines_and_in_the_log()
    {
        var lines = new List<OutputLine>();
        var spec = folder.Shell("echo one; echo two >&2; printf three; exit 3");
        var outcome = await ContainedProcess.RunAsync(spec, new() { OnLine = lines.Add }, TimeProvider.System, Token);
        Assert.Equal(ProcessEnd.Exited, outcome.End);
        Assert.Equal(3, outcome.ExitCode);
        Assert.Equal(["one", "three", "two"], lines.Select(line => line.Text).Order());
        Assert.True(lines.Single(line => line.Text == "two").IsError);
        Assert.Equal(["one", "three", "two"], File.ReadAllLines(spec.LogPath).Order());
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(spec.LogPath));
        TestContext.Current.TestOutputHelper!.WriteLine($"keeper ready after {outcome.KeeperStart.TotalMilliseconds:F0} ms");
    }
}
